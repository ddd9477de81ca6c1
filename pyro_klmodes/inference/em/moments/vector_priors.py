"""What the prior of mean vectors adds to their normal equations."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import Core
from pyro_klmodes.inference.em.moments.block import elements
from pyro_klmodes.inference.em.moments.entries import unexpanded
from pyro_klmodes.inference.em.moments.sums import padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["of_prior"]


def of_prior(
    use: Use,
    factor: Factor,
    core: Core,
    rows: Tensor,  # (*batch), the number of every mean
    around: Tensor,  # (means, D), their centres
) -> dict[str, Tensor]:
    """``prior_precision``: (R, means, D, D), and that times the prior mean, from the centre.

    The prior is a Normal, with a weight for every number or every vector, or a MultivariateNormal.
    """
    loc = unexpanded(core.fn.loc).double() - around[rows]
    if use.family == "Normal":
        grid = elements(use, factor, core)
        precision = unexpanded(core.fn.scale).double() ** -2
        if core.mask is not None:
            precision = precision * core.mask
        keep = padded(use.maps["value"], len(grid.shape)).shape
        diagonal = grid.sum(precision, keep)
        matrix = torch.diag_embed(diagonal)
        vector = diagonal * loc
        places = padded(rows, len(keep) - 1)
    else:
        grid = elements(use, factor, core, vectors=True)
        inverse = unexpanded(core.fn.precision_matrix).double()
        places = padded(rows, len(grid.shape))
        weight = grid.sum(core.mask, places.shape)
        matrix = weight[..., None, None] * inverse
        vector = weight[..., None] * (inverse @ loc[..., None]).squeeze(-1)
    return {
        "prior_precision": scatter(matrix, places, len(around)),
        "prior_first": scatter(vector, places, len(around)),
    }
