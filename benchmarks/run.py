"""Time and weigh every contest of some cases, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyro
import torch

from benchmarks.cases import Case
from benchmarks.contests import Contest, contests
from benchmarks.memory import peak_bytes
from benchmarks.table import cost_cell, markdown, ratio_cell
from benchmarks.timing import Timing, time_contest

__all__ = ["FULL", "QUICK", "Effort", "report"]


@dataclass(frozen=True)
class Effort:
    """How much is run: numbers of particles, counted blocks, and steps per block."""

    particles: Sequence[int]
    blocks: int
    steps: int


FULL = Effort(particles=(1, 16, 64), blocks=60, steps=3)
QUICK = Effort(particles=(16,), blocks=4, steps=1)


def report(cases: Iterable[Case], effort: Effort, tell: Callable[[str], None]) -> str:
    """Three tables: ratios of time, absolute times, and peak memory."""
    ratios, costs, memory = [], [], []
    for case in cases:
        for contest in contests(case):
            tell(f"{case.name}: {contest.name}")
            timings = [_time(case, contest, k, effort) for k in effort.particles]
            label = [case.name, contest.name]
            costs.append([*label, *map(cost_cell, timings)])
            if contest.theirs is not None:
                ratios.append([*label, contest.peer, *map(ratio_cell, timings)])
                memory.append([*label, contest.peer, *_memory(case, contest, effort)])

    columns = [f"K = {k}" for k in effort.particles]
    sections = [
        f"Python packages: torch {torch.__version__}, pyro-ppl {pyro.__version__}.",
        "Time per step over that of Pyro's loss, median (quartiles):",
        markdown(["model", "loss", "against", *columns], ratios),
        "Milliseconds per step:",
        markdown(["model", "loss", *columns], costs),
        f"Peak memory of a step's tensors at K = {effort.particles[-1]}, in kB:",
        markdown(["model", "loss", "against", "ours", "Pyro's", "ratio"], memory),
    ]
    return "\n\n".join(sections)


def _time(case: Case, contest: Contest, particles: int, effort: Effort) -> Timing | None:
    if particles < contest.min_particles:
        return None
    return time_contest(case, contest, particles, blocks=effort.blocks, steps=effort.steps)


def _memory(case: Case, contest: Contest, effort: Effort) -> list[str]:
    particles = effort.particles[-1]
    ours = peak_bytes(case, contest.ours, particles)
    theirs = peak_bytes(case, contest.theirs, particles)
    return [f"{ours / 1e3:.0f}", f"{theirs / 1e3:.0f}", f"{ours / theirs:.2f}"]
