"""Quantiles of the one-dimensional marginals of a mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.radial import Radial

__all__ = ["mixture_quantiles"]

# Halvings of the bracket; beyond this double precision has no more digits, whatever the bracket.
_HALVINGS = 200


def mixture_quantiles(
    levels: Tensor,  # (Q,)
    weights: Tensor,  # (*batch, C)
    locs: Tensor,  # (*batch, C, D)
    sds: Tensor,  # (*batch, C, D)
    radial: Radial,
) -> Tensor:  # (Q, *batch, D)
    """Where the marginal distribution function of every coordinate takes these levels.

    By bisection in double precision, between the smallest and the largest of the components'
    quantiles of that level, which bracket that of the mixture.
    """
    levels64, weights, locs, sds = (x.double() for x in (levels, weights, locs, sds))
    column = [-1] + [1] * locs.dim()
    of_components = locs + radial.standard_quantiles(levels64).reshape(column) * sds
    low, high = of_components.amin(-2), of_components.amax(-2)  # (Q, *batch, D)
    target = levels64.reshape(column[:-1])
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        if bool(((middle == low) | (middle == high)).all()):
            break
        cdf = radial.standard_cdf((middle.unsqueeze(-2) - locs) / sds)
        too_low = (weights.unsqueeze(-1) * cdf).sum(-2) < target
        low = torch.where(too_low, middle, low)
        high = torch.where(too_low, high, middle)
    return high.to(levels.dtype)
