"""How far the moments of a fit are from the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyro_klmodes.entries.entry import Fitted
from pyro_klmodes.entries.results import Parameter, Results

__all__ = ["Distance", "WorstDistance", "distance", "worst_distance"]


@dataclass(frozen=True)
class Distance:
    """One parameter of one fit against the reference.

    Attributes:
        z_shift: (mean - reference mean) / reference sd; NaN where that sd is zero.
        sd_ratio: sd / reference sd, likewise.
    """

    z_shift: float
    sd_ratio: float


@dataclass(frozen=True)
class WorstDistance:
    """The largest distances of a fit from the reference.

    Attributes:
        z_shift: The z-shift that is largest in absolute value.
        mean_at: The parameter it is at.
        sd_ratio: The ratio of standard deviations that is furthest from 1, on a logarithmic scale.
        sd_at: The parameter it is at.
    """

    z_shift: float
    mean_at: str
    sd_ratio: float
    sd_at: str


def distance(fit: Fitted, parameter: Parameter, results: Results) -> Distance | None:
    """One parameter of a fit against the reference; None where there is no reference."""
    known, own = parameter.of(results.reference.moments), parameter.of(fit.moments)
    if known is None or own is None:
        return None
    (mean, sd), (reference_mean, reference_sd) = own, known
    if reference_sd == 0:
        return Distance(math.nan, math.nan)
    return Distance((mean - reference_mean) / reference_sd, sd / reference_sd)


def worst_distance(fit: Fitted, results: Results) -> WorstDistance | None:
    """The largest distances over the parameters with a reference; None if there are none."""
    found = [(p.name, distance(fit, p, results)) for p in results.scalars()]
    known = [(name, d) for name, d in found if d is not None and not math.isnan(d.z_shift)]
    if not known:
        return None
    mean_at, mean = max(known, key=lambda pair: abs(pair[1].z_shift))
    sd_at, sd = max(known, key=lambda pair: _unequal(pair[1].sd_ratio))
    return WorstDistance(mean.z_shift, mean_at, sd.sd_ratio, sd_at)


def _unequal(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf
