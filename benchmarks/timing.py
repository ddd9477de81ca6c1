"""Seconds per step, in turns, so that a busy machine is busy for both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Protocol

__all__ = ["Timing", "time_trainings"]

Work = Callable[[], object]


class Training(Protocol):
    """Something done step by step, such as `benchmarks.training.Training`."""

    def run(self, steps: int, measure: Callable[[Work], float]) -> float:
        """Take some steps, and return what ``measure`` makes of them."""


@dataclass(frozen=True)
class Timing:
    """Medians over blocks of steps.

    Attributes:
        ours: seconds per step.
        theirs: seconds per step, None without a counterpart.
        ratio: median of ours over theirs within a block.
        spread: lower and upper quartile of that ratio.
    """

    ours: float
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None


def time_trainings(ours: Training, theirs: Training | None, *, blocks: int, steps: int) -> Timing:
    """Alternate blocks of steps of the two, after a block that is not counted."""
    if theirs is None:
        seconds = [ours.run(steps, _seconds) / steps for _ in range(blocks + 1)][1:]
        return Timing(median(seconds))

    rounds = [
        (ours.run(steps, _seconds) / steps, theirs.run(steps, _seconds) / steps)
        for _ in range(blocks + 1)
    ][1:]
    ratios = [a / b for a, b in rounds]
    low, _, high = quantiles(ratios, n=4)
    return Timing(
        median(a for a, _ in rounds), median(b for _, b in rounds), median(ratios), (low, high)
    )


def _seconds(work: Work) -> float:
    """Processor time, which leaves out whatever else the machine does meanwhile."""
    start = time.process_time()
    work()
    return time.process_time() - start
