"""A training in files: tables of losses and bounds, a summary, and pictures."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_klmodes import plots
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.training.run import Settings, Trained
from pyro_klmodes.training.task import Task

__all__ = ["summary", "write"]

SAMPLES = 64
RECONSTRUCTIONS = 10


def write(folder: Path, task: Task, settings: Settings, trained: Trained, command: str) -> None:
    """Write ``losses.csv``, ``held_out.csv``, ``summary.json`` and figures."""
    losses = losses_frame(trained)
    losses.to_csv(folder / "losses.csv", index=False)
    looks = pd.DataFrame(trained.looks, columns=["epoch", "step", "bound", "standard_error"])
    looks[["epoch", "step"]] += 1  # counted from one, as people do
    looks.to_csv(folder / "held_out.csv", index=False)
    found = {**summary(task, settings, trained), "command": command}
    text = json.dumps(found, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    if len(losses):
        figure = plots.learning(
            losses["loss"].to_numpy(),
            *(looks[name].to_numpy(dtype=float) for name in ("step", "bound", "standard_error")),
            exact=trained.exact,
        )
        (folder / "learning.png").write_bytes(plots.png(figure))
        _write_pictures(folder, task, settings, trained)


def losses_frame(trained: Trained) -> pd.DataFrame:
    """A row per step: its number and that of its epoch, from one, and the loss."""
    losses = trained.result.losses.numpy()
    frame = pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})
    if trained.batches_per_epoch:
        frame.insert(1, "epoch", (frame["step"] - 1) // trained.batches_per_epoch + 1)
    return frame


def summary(task: Task, settings: Settings, trained: Trained) -> dict[str, Any]:
    """What there is to say in numbers, as JSON has it: what is not finite is None."""
    result, held_out = trained.result, trained.held_out
    return {
        "name": task.name,
        **asdict(settings),
        "batch_size": settings.batch_size or task.batch_size,
        "num_particles": getattr(result.loss, "num_particles", None),
        "epochs": result.epochs,
        "steps": result.steps,
        "seconds": result.seconds,
        "interrupted": result.interrupted,
        "last_loss": _finite(float(result.losses[-1])) if result.steps else None,
        "held_out_bound": None if held_out is None else _finite(held_out.bound),
        "standard_error": None if held_out is None else _finite(held_out.standard_error),
        "exact_log_evidence": None if trained.exact is None else _finite(trained.exact),
        "versions": dict(result.versions),
    }


def _write_pictures(folder: Path, task: Task, settings: Settings, trained: Trained) -> None:
    with seeded(settings.seed), trained.result.scope():
        if task.samples is not None:
            figure = plots.pictures(task.samples(SAMPLES).numpy(), columns=16)
            (folder / "samples.png").write_bytes(plots.png(figure))
        if task.reconstructions is not None:
            batch = next(iter(task.test_batches()))
            shown, again = task.reconstructions(*(part[:RECONSTRUCTIONS] for part in batch))
            figure = plots.pictures(shown.numpy(), again.numpy(), columns=RECONSTRUCTIONS)
            (folder / "reconstructions.png").write_bytes(plots.png(figure))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
