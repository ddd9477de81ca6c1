"""Which cells there are."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.engine.cell import AMORTISED, FULL_RANK, MEAN_FIELD, Cell

__all__ = ["AUTOENCODER", "OBJECTIVES", "PARTICLES", "SEQUENTIAL", "SMALL", "grid", "quick"]

SMALL = (
    "eight schools",
    "mixture potential",
    "logistic regression",
    "radon",
    "enumerated mixture",
)
AUTOENCODER = "autoencoder"
SEQUENTIAL = ("hidden Markov, T = 20", "state space, T = 100")
OBJECTIVES = ("ELBO", "IWAE", "forward KL")
PARTICLES = (1, 16, 64)


def grid() -> Iterator[Cell]:
    """All of it: small models and the autoencoder in full, sequential models by the ELBO alone."""
    for model in SMALL:
        for guide in (MEAN_FIELD, FULL_RANK):
            yield from _objectives(model, guide)
    yield from _objectives(AUTOENCODER, AMORTISED)
    for model in SEQUENTIAL:
        for particles in (1, 16):
            yield Cell(model, MEAN_FIELD, "ELBO", particles)


def quick() -> Iterator[Cell]:
    """One cell per model and objective."""
    for cell in grid():
        if cell.particles == 16 and cell.guide != FULL_RANK and cell.model not in SEQUENTIAL:
            yield cell


def _objectives(model: str, guide: str) -> Iterator[Cell]:
    for objective in OBJECTIVES:
        for particles in PARTICLES:
            # the only weight of a single particle is one: no gradient
            if (objective, particles) != ("forward KL", 1):
                yield Cell(model, guide, objective, particles)
