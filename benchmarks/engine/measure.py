"""Time all contestants of one cell in turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median, quantiles
from typing import Any

from benchmarks.engine.cell import Cell
from benchmarks.engine.client import Workers

__all__ = ["measure"]


def measure(
    cell: Cell, names: Sequence[str], group: Workers, *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Microseconds per step, seconds to the first step, and ratios within rounds.

    Args:
        cell: what is timed.
        names: contestants.
        group: their processes.
        rounds: how often each has its turn; one more turn is not counted.
        seconds: processor time of a turn.

    Returns:
        ``step`` and ``first`` by contestant, ``ratios`` (median, quartiles) by "A / B", and
        ``failed``: the reason by contestant.
    """
    first, steps, failed = {}, {}, {}
    for name in names:
        reply = group.ask(name, do="build", name=name, cell=cell.as_dict(), seconds=seconds)
        if "failed" in reply:
            failed[name] = reply["failed"]
        else:
            first[name], steps[name] = round(reply["first"], 3), reply["steps"]

    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in _rotated(list(taken), turn):
            reply = group.ask(name, do="time", name=name, steps=steps[name])
            if "failed" in reply:
                failed[name] = reply["failed"]
                del taken[name]
            elif turn:
                taken[name].append(reply["seconds"])
    group.drop()
    return {
        "step": {name: _short(median(times) * 1e6) for name, times in taken.items()},
        "first": {name: first[name] for name in taken},
        "ratios": {f"{a} / {b}": _ratio(taken[a], taken[b]) for a, b in combinations(taken, 2)},
        "failed": failed,
    }


def _rotated(names: list[str], turn: int) -> list[str]:
    """Nobody is always the one after the same other."""
    start = turn % max(len(names), 1)
    return names[start:] + names[:start]


def _ratio(ours: list[float], theirs: list[float]) -> list[float]:
    """Median and quartiles of the ratios within rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return [_short(x) for x in (median(ratios), low, high)]


def _short(x: float) -> float:
    return float(f"{x:.4g}")
