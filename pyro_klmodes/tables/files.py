"""A comparison in files: ``fits.csv``, ``parameters.csv``, ``results.json`` and the draws."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyro_klmodes import inference_data
from pyro_klmodes.entries import Failed, Fitted, Moments, Outcome, Results
from pyro_klmodes.tables.conclusion import conclude
from pyro_klmodes.tables.frames import fits_frame, parameters_frame
from pyro_klmodes.tables.written import written

__all__ = ["draws_files", "to_dict", "write_draws", "write_tables"]


def write_tables(folder: Path, results: Results) -> None:
    """Write ``fits.csv``, ``parameters.csv`` and ``results.json`` (all of it but the draws)."""
    fits_frame(results).to_csv(folder / "fits.csv", encoding="utf-8")
    parameters_frame(results).to_csv(folder / "parameters.csv", encoding="utf-8")
    text = json.dumps(to_dict(results), indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    written(folder, ("fits.csv", "parameters.csv", "results.json"))


def write_draws(folder: Path, results: Results, fit: Fitted) -> None:
    """Write the draws of one fit as a NetCDF file that ArviZ reads."""
    name = draws_files(results)[fit.label]
    inference_data.write(fit.data, folder / name)
    written(folder, (name,))


def draws_files(results: Results) -> dict[str, str]:
    """The name of the NetCDF file of every fit, by label: the label without what files dislike.

    Labels that come out alike are numbered in their order, so that a fit that is added later does
    not change the names of those before it.
    """
    names: dict[str, str] = {}
    for outcome in results.outcomes:
        plain = re.sub(r"[^\w.+]+", "-", outcome.label).strip("-.") or "fit"
        alike, number = plain.lower(), 1
        while f"{alike}.nc" in (name.lower() for name in names.values()):
            number += 1
            alike = f"{plain}-{number}".lower()
        names[outcome.label] = f"{plain}.nc" if number == 1 else f"{plain}-{number}.nc"
    return names


def to_dict(results: Results) -> dict[str, Any]:
    """All of it but the draws, as JSON has it: what is not finite is None."""
    reference, conclusion = results.reference, conclude(results)
    files = draws_files(results)
    return _finite(
        {
            "name": results.name,
            "source": results.source,
            "conclusion": asdict(conclusion),
            "reference": {site: _as_lists(moments) for site, moments in reference.moments.items()},
            "reference_from": reference.origin,
            "exact_log_evidence": reference.log_evidence,
            "left_out": results.left_out,
            "settings": asdict(results.settings),
            "fits": [_outcome(outcome, files[outcome.label]) for outcome in results.outcomes],
        }
    )


def _outcome(outcome: Outcome, file: str) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"status": "failed", **asdict(outcome)}
    loo = outcome.loo
    return {
        "status": outcome.verdict,
        "label": outcome.label,
        "guide": outcome.guide,
        "loss": outcome.loss,
        "seconds": outcome.seconds,
        "gradient_evaluations": outcome.gradient_evaluations,
        "recipe": None if outcome.recipe is None else asdict(outcome.recipe),
        "file": file,
        "posterior": {site: _as_lists(moments) for site, moments in outcome.moments.items()},
        "corrected": {site: _as_lists(moments) for site, moments in outcome.corrected.items()},
        "loo": None
        if loo is None
        else {"elpd": loo.elpd, "se": loo.se, "p": loo.p, "bad_k": outcome.bad_loo},
        "without_loo": outcome.without_loo,
        "diagnosis": outcome.diagnosis.to_dict(),
        "notes": list(outcome.notes),
    }


def _as_lists(moments: Moments) -> dict[str, Any]:
    return {"mean": moments.mean.tolist(), "sd": moments.sd.tolist()}


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
