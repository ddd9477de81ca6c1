"""EM against scikit-learn: many starts, many data; and what acceleration saves.

Run ``python -m benchmarks.em`` for the tables of the README (more than half an hour on one core).
"""

from __future__ import annotations

import click
import torch

from benchmarks.em_restarts import PROBLEMS, restart_rows
from benchmarks.em_scale import BATCH, DIMS, scale_rows
from benchmarks.table import markdown
from models import mixed_poisson
from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem
from pyro_klmodes.inference.em import EM

__all__ = ["evaluation_rows", "report"]


def evaluation_rows(starts: int, tolerance: float) -> list[list[str]]:
    """Median E-steps on Hasselblad's counts, and how far the worst start ends from the maximum."""
    at = mixed_poisson.starts(starts)
    given = {"weights": torch.stack([at[:, 0], 1 - at[:, 0]], -1), "rates": at[:, 1:]}
    rows = []
    for acceleration in (Plain(), Squarem(), Anderson()):
        em = EM(mixed_poisson.model, starts=given, acceleration=acceleration)
        found = em.fit(mixed_poisson.data(), steps=6000, tolerance=tolerance, progress=False)
        restarts = found.restarts
        missed = (restarts.log_likelihood - mixed_poisson.MAX_LOG_LIKELIHOOD).abs().max()
        rows.append(
            [
                type(acceleration).__name__,
                f"{restarts.evaluations.median():.0f}",
                f"{restarts.evaluations.max():.0f}",
                f"{float(missed):.1e}",
            ]
        )
    return rows


def report(*, quick: bool = False) -> str:
    """Three tables; a quick one is of small data and few steps."""
    starts, number = (5, 20_000) if quick else (50, 1_000_000)
    problems = PROBLEMS[:1] if quick else PROBLEMS
    steps = 10 if quick else 20
    restarts = restart_rows(problems, starts=starts, steps=steps, turns=2 if quick else 7)
    scale = scale_rows(number, passes=1 if quick else 4, turns=1 if quick else 3)
    sections = [
        f"A Gaussian mixture with full covariances from {starts} starts, in one batch, and a loop "
        "over scikit-learn: milliseconds per step of all starts, the ratio of these, and that of "
        f"{steps} steps with all that comes before, median (quartiles):",
        markdown(
            ["data", "components", "EM", "scikit-learn", "a step", f"{steps} steps"],
            list(restarts),
        ),
        f"{number:,} x {DIMS} data ({number * DIMS * 8 / 1e6:.0f} MB), 10 components, in batches "
        f"of {BATCH:,}: seconds per pass over the data, the ratio to scikit-learn's (range over "
        "processes), the growth of the process in MB while it fits, and the log-likelihood per "
        "datum after the same number of passes:",
        markdown(["", "s per pass", "ratio", "MB", "log-likelihood"], list(scale)),
        f"E-steps on Hasselblad's counts from {starts} starts, tolerance 1e-7, and the largest "
        "distance of a start's log-likelihood from the maximum:",
        markdown(["", "median", "most", "missed"], evaluation_rows(starts, 1e-7)),
    ]
    return "\n\n".join(sections)


@click.command()
@click.option("--quick", is_flag=True, help="A smoke run: little data, few steps.")
def main(quick: bool) -> None:
    """Compare EM with scikit-learn."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    click.echo(report(quick=quick))


if __name__ == "__main__":
    main()
