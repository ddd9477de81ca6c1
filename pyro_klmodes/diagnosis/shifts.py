"""How far the guide's moments are from those of the weighted draws, at worst."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.verdict import SHORT_IN_ERRORS, WorstShift
from pyro_klmodes.diagnostics import CorrectedMoments
from pyro_klmodes.names import element_name

__all__ = ["Beyond", "shift_beyond", "worst_shift"]

LEAST_SD = 1e-6  # in units of the mean: less is rounding


@dataclass(frozen=True)
class Beyond:
    """Moments of one site by draws that do not come from the guide, each of the site's shape.

    Attributes:
        mean: of the weighted draws.
        sd: their standard deviation.
        kurtosis: their fourth central moment over the squared variance.
        effective_draws: how many they are worth.
    """

    mean: Tensor
    sd: Tensor
    kurtosis: Tensor
    effective_draws: float


def worst_shift(moments: Mapping[str, CorrectedMoments]) -> WorstShift | None:
    """The largest shift of a mean and the largest ratio of standard deviations, and where.

    None if there is no site, or a moment is not a number.
    """
    return _worst(
        {site: found.shift.abs() for site, found in moments.items()},
        {site: found.sd_ratio.log() for site, found in moments.items()},
    )


def shift_beyond(
    moments: Mapping[str, CorrectedMoments],
    effective_draws: float,
    beyond: Mapping[str, Beyond],
) -> WorstShift | None:
    """The corrected moments against those of draws that do not come from the guide, at worst.

    What may be chance counts as zero: four standard errors, those of a standard deviation with the
    kurtosis of the draws. A moment that hardly exists, as the standard deviation of a heavy tail,
    contradicts nothing. Nor do elements that never vary.
    """
    means, ratios = {}, {}
    for site, other in beyond.items():
        if site in moments:
            varies = (other.sd > LEAST_SD * (1 + other.mean.abs())) & (
                moments[site].corrected_sd > 0
            )
            scale = torch.where(varies, other.sd, 1.0)
            few = (1 / effective_draws + 1 / other.effective_draws) ** 0.5
            mean = ((moments[site].corrected_mean - other.mean) / scale).abs()
            ratio = torch.where(varies, moments[site].corrected_sd / scale, 1.0).log()
            chance = SHORT_IN_ERRORS * few * (0.25 * (other.kurtosis - 1)).clamp(min=0.5).sqrt()
            means[site] = torch.where(varies & (mean > SHORT_IN_ERRORS * few), mean, 0.0)
            ratios[site] = torch.where(ratio.abs() > chance, ratio, 0.0)
    return _worst(means, ratios)


def _worst(means: Mapping[str, Tensor], ratios: Mapping[str, Tensor]) -> WorstShift | None:
    if not means or any(bool(x.isnan().any()) for x in (*means.values(), *ratios.values())):
        return None
    mean_at, mean = _largest(means)
    sd_at, _ = _largest({site: x.abs() for site, x in ratios.items()})
    site, index = sd_at
    return WorstShift(
        mean=mean,
        mean_at=element_name(*mean_at),
        log_ratio=float(ratios[site][index]),
        sd_at=element_name(*sd_at),
    )


def _largest(
    by_site: Mapping[str, Tensor],
) -> tuple[tuple[str, tuple[int, ...]], float]:
    """The place of the largest element of all sites, and its value."""
    site = max(
        by_site, key=lambda name: float(by_site[name].max()) if by_site[name].numel() else -math.inf
    )
    value, place = by_site[site].reshape(-1).max(0)
    index = tuple(int(i) for i in torch.unravel_index(place, by_site[site].shape))
    return (site, index), float(value)
