"""What the plates of a site say: independence, batch dimension, subsampling ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["PARTICLES", "STRATA", "depth", "plates_of", "split_scale", "subsampled"]

#: the name of the plate that holds the particles, and the prefix of a second one
PARTICLES = "_klmodes_particles"
#: the name where particles may be spread over the components of a mixture, with a weight each
STRATA = f"{PARTICLES}_strata"


def plates_of(site: Mapping[str, Any]) -> dict[str, int]:
    """Names and batch dimensions of the vectorised plates around a site, particles excluded."""
    return {
        f.name: f.dim
        for f in site["cond_indep_stack"]
        if f.vectorized and not f.name.startswith(PARTICLES)
    }


def subsampled(site: Mapping[str, Any]) -> dict[str, float]:
    """Names of the subsampled plates around a site, with their ratios full size / batch size."""
    return {
        f.name: f.full_size / f.size
        for f in site["cond_indep_stack"]
        if f.full_size is not None and f.size > 0 and f.full_size != f.size
    }


def split_scale(site: Mapping[str, Any]) -> tuple[float | Tensor, dict[str, float]]:
    """The user's own ``poutine.scale`` of a site, and the ratios of its subsampled plates.

    Pyro multiplies both into ``site["scale"]``. A number in a tensor is a number, unless it is a
    parameter; numbers are rounded, so that sites under different plates compare as they should.
    """
    ratios = subsampled(site)
    scale = site["scale"]
    if ratios:
        scale = scale / math.prod(ratios.values())
    if not isinstance(scale, Tensor):
        return float(f"{scale:.12g}"), ratios
    if scale.dim() > 0 or scale.requires_grad:
        return scale, ratios
    digits = 12 if scale.dtype == torch.float64 else 6
    return float(f"{float(scale):.{digits}g}"), ratios


def depth(sites: Iterable[Mapping[str, Any]]) -> int:
    """How many batch dimensions the plates of some sites take up."""
    return max((-dim for site in sites for dim in plates_of(site).values()), default=0)
