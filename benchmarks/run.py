"""Time and weigh every contest of some cases, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyro
import torch

from benchmarks.cases import Case
from benchmarks.contests import Contest, MakeLoss, contests
from benchmarks.guide_contests import LOSSES, GuideContest, guide_contests
from benchmarks.khat import NUM_DRAWS, time_khat
from benchmarks.memory import peak_bytes
from benchmarks.table import cost_cell, markdown, ratio_cell
from benchmarks.timing import Timing, time_trainings
from benchmarks.training import Training

__all__ = ["FULL", "QUICK", "Effort", "report"]


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        particles: numbers of particles.
        blocks: counted blocks.
        steps: steps per block.
        khat_cells: cells whose k-hat is computed.
        khat_blocks: how often.
    """

    particles: Sequence[int]
    blocks: int
    steps: int
    khat_cells: int
    khat_blocks: int


GUIDE_PARTICLES = 16

FULL = Effort(particles=(1, 16, 64), blocks=60, steps=3, khat_cells=10_000, khat_blocks=9)
QUICK = Effort(particles=(16,), blocks=4, steps=1, khat_cells=100, khat_blocks=4)


def report(cases: Iterable[Case], effort: Effort, tell: Callable[[str], None]) -> str:
    """Tables: for losses ratios of time, absolute times, peak memory; for guides; for k-hat."""
    cases = list(cases)
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

    guides = [row for case in cases for row in _guide_rows(case, effort, tell)]
    columns = [f"K = {k}" for k in effort.particles]
    sections = [
        f"Python packages: torch {torch.__version__}, pyro-ppl {pyro.__version__}.",
        "Time per step over that of Pyro's loss, median (quartiles):",
        markdown(["model", "loss", "against", *columns], ratios),
        "Milliseconds per step:",
        markdown(["model", "loss", *columns], costs),
        f"Peak memory of a step's tensors at K = {effort.particles[-1]}, in kB:",
        markdown(["model", "loss", "against", "ours", "Pyro's", "ratio"], memory),
        f"Guides at K = {GUIDE_PARTICLES}: time per step over that of Pyro's guide under the same "
        "loss, median (quartiles), and milliseconds per step of ours with the first:",
        markdown(["model", "guide", "against", *LOSSES, "ms"], guides),
        *_khat(effort, tell),
    ]
    return "\n\n".join(sections)


def _time(case: Case, contest: Contest, particles: int, effort: Effort) -> Timing | None:
    if particles < contest.min_particles:
        return None
    ours = Training(case, contest.ours(particles))
    theirs = None if contest.theirs is None else Training(case, contest.theirs(particles))
    return time_trainings(ours, theirs, blocks=effort.blocks, steps=effort.steps)


def _guide_rows(case: Case, effort: Effort, tell: Callable[[str], None]) -> Iterator[list[str]]:
    for contest in guide_contests(case):
        tell(f"{case.name}: {contest.name}")
        timings = [_time_guides(case, contest, make, effort) for make in LOSSES.values()]
        against = contest.peer if contest.alike else f"({contest.peer})"
        cost = cost_cell(timings[0])
        yield [case.name, contest.name, against, *map(ratio_cell, timings), cost]


def _time_guides(case: Case, contest: GuideContest, make_loss: MakeLoss, effort: Effort) -> Timing:
    ours, theirs = (
        Training(case, make_loss(GUIDE_PARTICLES), make_guide)
        for make_guide in (contest.ours, contest.theirs)
    )
    return time_trainings(ours, theirs, blocks=effort.blocks, steps=effort.steps)


def _memory(case: Case, contest: Contest, effort: Effort) -> list[str]:
    particles = effort.particles[-1]
    ours = peak_bytes(case, contest.ours, particles)
    theirs = peak_bytes(case, contest.theirs, particles)
    return [f"{ours / 1e3:.0f}", f"{theirs / 1e3:.0f}", f"{ours / theirs:.2f}"]


def _khat(effort: Effort, tell: Callable[[str], None]) -> tuple[str, str]:
    tell("Pareto k-hat")
    timing = time_khat(cells=effort.khat_cells, blocks=effort.khat_blocks)
    row = [
        f"{effort.khat_cells:,} x {NUM_DRAWS:,}",
        f"{timing.ours * 1e3:.0f}",
        f"{timing.theirs * 1e3:.0f}",
        ratio_cell(timing),
    ]
    return (
        "Pareto k-hat: milliseconds of `weights.pareto_khat` and of one call of `arviz.psislw`, "
        "and their ratio, median (quartiles):",
        markdown(["cells x draws", "ours", "ArviZ", "ratio"], [row]),
    )
