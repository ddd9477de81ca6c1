"""Seconds of whole runs, compilation included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.cell import AMORTISED, MEAN_FIELD, Cell
from benchmarks.engine.client import Workers

__all__ = ["LENGTHS", "WHOLE", "WHOLE_STEPS", "Plan", "planned", "time_whole"]

LENGTHS = (1_000, 10_000, 100_000)
WHOLE = Cell("eight schools", MEAN_FIELD, "ELBO", 16)
WHOLE_STEPS = 10_000


@dataclass(frozen=True)
class Plan:
    """What runs of one length take.

    Attributes:
        label: of the cell.
        steps: their number.
        seconds: by contestant.
    """

    label: str
    steps: int
    seconds: dict[str, float]


def planned(cells: dict[str, Any], lengths: Sequence[int]) -> Iterator[Plan]:
    """Seconds to the first step plus so many steps, for every model under the ELBO."""
    for label, cell in cells.items():
        _, guide, objective, _ = label.split(" | ")
        if objective == "ELBO" and guide in (MEAN_FIELD, AMORTISED):
            for steps in lengths:
                yield Plan(label, steps, reckon(cell, steps))


def reckon(cell: dict[str, Any], steps: int) -> dict[str, float]:
    """Seconds by contestant."""
    return {
        name: cell["first"][name] + steps * microseconds / 1e6
        for name, microseconds in cell["step"].items()
    }


def time_whole(
    cell: Cell, steps: int, group: Workers, result: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Run it from nothing to the last step, for every contestant that the cell was timed with.

    Returns:
        By contestant ``steps``, ``seconds``, and what was ``planned`` from the cell's timing.
    """
    plans = reckon(result, steps)
    whole = {}
    for name, plan in plans.items():
        reply = group.ask(name, do="whole", name=name, cell=cell.as_dict(), steps=steps)
        if "seconds" in reply:
            seconds = round(reply["seconds"], 2)
            whole[name] = {"steps": steps, "seconds": seconds, "planned": round(plan, 2)}
    return whole
