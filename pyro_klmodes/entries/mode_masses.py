"""The modes that a search found, and the mass that each fit gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyro_klmodes.diagnosis.elsewhere import LEAST_MASS
from pyro_klmodes.entries.entry import Fitted
from pyro_klmodes.entries.results import Results

__all__ = ["ModeMasses", "mode_masses"]


@dataclass(frozen=True)
class ModeMasses:
    """Shares of the posterior's mass around M modes, the largest first.

    Attributes:
        found: ``(M,)``, what a search without any guide found.
        fits: The fits whose mass was counted.
        of_fits: ``(F, M)``, their masses.
    """

    found: np.ndarray
    fits: tuple[Fitted, ...]
    of_fits: np.ndarray


def mode_masses(results: Results) -> ModeMasses | None:
    """Collect the masses of all fits; None if fewer than two modes were found."""
    found: np.ndarray | None = None
    counted = []
    for fit in results.fits:
        opinion, coverage = fit.diagnosis.opinion, fit.diagnosis.coverage
        if opinion is None or coverage is None:
            continue
        kept = np.asarray(opinion.masses, dtype=np.float64)
        kept = kept[kept >= LEAST_MASS]
        if len(kept) != len(coverage.masses):
            continue
        if found is None:
            found = kept / kept.sum()
        elif not np.array_equal(found, kept / kept.sum()):
            continue  # another model, with modes of its own
        counted.append((fit, np.asarray(coverage.masses, dtype=np.float64)))
    if found is None:
        return None
    order = np.argsort(-found, kind="stable")
    fits, masses = zip(*counted, strict=True)
    return ModeMasses(found[order], tuple(fits), np.stack(masses)[:, order])
