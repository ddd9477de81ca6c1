"""How far the guide's moments are from those of the weighted draws, at worst."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.verdict import WorstShift
from pyro_klmodes.diagnostics import CorrectedMoments
from pyro_klmodes.names import element_name

__all__ = ["shift_beyond", "worst_shift"]


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
    beyond: Mapping[str, tuple[Tensor, Tensor]],  # {site: mean and sd, each of the site's shape}
) -> WorstShift | None:
    """The corrected moments against those of draws that do not come from the guide, at worst."""
    means, ratios = {}, {}
    for site, (mean, sd) in beyond.items():
        if site in moments:
            scale = sd.clamp(min=torch.finfo(sd.dtype).tiny)
            means[site] = ((moments[site].corrected_mean - mean) / scale).abs()
            ratios[site] = (moments[site].corrected_sd / scale).log()
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
