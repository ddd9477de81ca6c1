"""``python -m benchmarks.engine.agreement``: whether NumPyro takes the same step.

Pyro, this package and torch by hand draw the same noise, so the tests compare them exactly. NumPyro
draws its own: here its mean loss at the same parameters, and the mean slope of the loss as the
guide's mean moves, are compared with those by hand, in standard errors of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

import click

from benchmarks.engine.cell import Cell
from benchmarks.engine.client import Workers, workers
from benchmarks.engine.entrants import HAND, NUMPYRO, missing
from benchmarks.engine.grid import grid

__all__ = ["LIMIT", "Agreement", "agreements", "main"]

LIMIT = 4.5  # beyond it by chance once in 150,000 times
COUNT = 400
PARTICLES = 16


@dataclass(frozen=True)
class Agreement:
    """Two means over independent draws.

    Attributes:
        quantity: "loss" or "slope".
        by_hand: mean.
        numpyro: mean.
        error: standard error of their difference.
    """

    quantity: str
    by_hand: float
    numpyro: float
    error: float

    @property
    def score(self) -> float:
        """The difference in standard errors."""
        return (self.numpyro - self.by_hand) / self.error


def agreements(cell: Cell, group: Workers, count: int = COUNT) -> Iterator[Agreement]:
    """Compare NumPyro's loss and its slope with those by hand.

    Raises:
        RuntimeError: if one of them fails.
    """
    replies = {}
    for name in (HAND, NUMPYRO):
        reply = group.ask(name, do="sample", name=name, cell=cell.as_dict(), count=count)
        if "failed" in reply:
            raise RuntimeError(f"{cell.label}: {name}: {reply['failed']}")
        replies[name] = reply
    for quantity in ("loss", "slope"):
        by_hand, numpyro = (replies[name][quantity] for name in (HAND, NUMPYRO))
        error = sqrt((variance(by_hand) + variance(numpyro)) / count)
        yield Agreement(quantity, fmean(by_hand), fmean(numpyro), error)


@click.command()
@click.option("--case", default="", help="Only cells whose label contains this.")
@click.option("--count", default=COUNT, show_default=True, help="Steps that are averaged.")
def main(case: str, count: int) -> None:
    """Compare NumPyro's steps with those by hand, in every cell of 16 particles."""
    if missing(NUMPYRO):
        click.echo(f"Without {NUMPYRO}: {' and '.join(missing(NUMPYRO))} not installed.")
        return
    apart = 0
    with workers(warm=False) as group:
        for cell in grid():
            if cell.particles == PARTICLES and case in cell.label:
                for found in agreements(cell, group, count):
                    apart += abs(found.score) > LIMIT
                    click.echo(
                        f"{cell.label}: {found.quantity} {found.by_hand:.6g} by hand, "
                        f"{found.numpyro:.6g} in NumPyro, {found.score:+.1f} standard errors"
                    )
    if apart:
        raise click.ClickException(f"{apart} means differ by more than {LIMIT} standard errors.")


if __name__ == "__main__":
    main()
