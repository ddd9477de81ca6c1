"""Whose evidence falls short of that of another fit of the same model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyro_klmodes.diagnosis.verdict import SHORT_IN_ERRORS, SHORT_IN_NATS
from pyro_klmodes.entries.entry import USABLE, Fitted
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.entries.results import Results

__all__ = ["Shortfall", "shortfall"]


@dataclass(frozen=True)
class Shortfall:
    """What one fit shows that another one misses.

    Attributes:
        better: The fit with more evidence.
        nats: How much more, in natural units.
    """

    better: Fitted
    nats: float

    @property
    def mass(self) -> float:
        """The share of the posterior's mass that is missed, ``1 - exp(-nats)``."""
        return -math.expm1(-self.nats)


def shortfall(fit: Fitted, results: Results) -> Shortfall | None:
    """Hold the evidence of a fit against the best of the others whose weights can be believed.

    An estimate from well-behaved weights hardly exceeds the evidence, so one that is clearly larger
    proves that the smaller one misses mass. This works where no search for modes was made, as in
    high dimension. What counts as clearly is as for the verdict.

    Returns:
        None if the fit is not short of any other one, or there is nothing to compare.
    """
    own = evidence_of(fit.diagnosis)
    found = None
    for other in results.fits:
        theirs = evidence_of(other.diagnosis)
        # A model that learns has another evidence for every value of its parameters.
        same_model = other.model is not None and other.model is fit.model and not fit.learns
        if other is fit or not same_model or other.verdict not in USABLE:
            continue
        if own.estimate is None or theirs.estimate is None:
            continue
        nats = theirs.estimate - own.estimate
        chance = SHORT_IN_ERRORS * math.hypot(own.error or 0.0, theirs.error or 0.0)
        if nats > max(SHORT_IN_NATS, chance) and (found is None or nats > found.nats):
            found = Shortfall(other, nats)
    return found
