"""Pareto k-hat of many cells at once, next to ArviZ, which fits one after the other."""

from __future__ import annotations

from collections.abc import Callable

import arviz
import torch

from benchmarks.timing import Timing, time_trainings
from pyro_klmodes.weights import pareto_khat

__all__ = ["NUM_DRAWS", "time_khat"]

NUM_DRAWS = 4000


class _Repeated:
    """A computation that is timed as a training is, one call a step."""

    def __init__(self, compute: Callable[[], object]) -> None:
        self.compute = compute

    def run(self, steps: int, measure) -> float:
        return measure(lambda: [self.compute() for _ in range(steps)])


def time_khat(*, cells: int, blocks: int) -> Timing:
    """Seconds per call for normal log-weights, each side with the layout it asks for.

    Ours has the draws first; ArviZ, called once for all cells, has them last.
    """
    generator = torch.Generator().manual_seed(0)
    log_w = 2 * torch.randn(NUM_DRAWS, cells, generator=generator, dtype=torch.float64)
    draws_last = log_w.T.contiguous().numpy()
    return time_trainings(
        _Repeated(lambda: pareto_khat(log_w)),
        _Repeated(lambda: arviz.psislw(draws_last)),
        blocks=blocks,
        steps=1,
    )
