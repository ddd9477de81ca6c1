"""A precision matrix and a vector whose covariance is its inverse, in a unit of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.block_families.base import BlockFamily, BlockParams
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.base import Initial
from pyro_klmodes.guides.site_families.wishart import Wishart

__all__ = ["NormalWishart"]


class NormalWishart(BlockFamily):
    r"""``Lambda ~ Wishart(df, V)``, ``mu | Lambda ~ Normal(loc, (strength Lambda)^-1)``.

    The conjugate family of a normal with unknown mean and precision matrix, as of the components of
    a Gaussian mixture (Bishop 2006, section 10.2). Parameters ``df`` ``(*batch)`` and
    ``scale_tril`` ``(*batch, D, D)``, the Cholesky factor of V, of the matrix; ``loc``
    ``(*batch, D)`` and ``strength`` ``(*batch)`` of the vector.

    Args:
        matrix: a site of positive definite matrices.
        vector: a site of real vectors, in the plates of the matrix or more.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro_klmodes.guides import AutoBlocks
        >>> from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
        >>> def model():
        ...     wishart = BartlettWishart(torch.tensor(4.0), torch.eye(2))
        ...     precision = pyro.sample("precision", wishart)
        ...     normal = dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)
        ...     pyro.sample("mu", normal)
        >>> guide = AutoBlocks(model, [("mu", "precision")])
        >>> sorted(guide())
        ['mu', 'precision']
        >>> {name: tuple(p.shape) for name, p in guide.parameters_of("mu").items()}
        {'loc': (2,), 'strength': ()}
    """

    family = Wishart()

    def __init__(self, matrix: Latent, vector: Latent) -> None:
        self.matrix, self.vector = matrix, vector
        self.latents = (matrix, vector)

    def initial(self, scale: float) -> dict[str, dict[str, Initial]]:
        """The Wishart that the matrix has alone; ``scale^2`` is the mean variance at its value."""
        matrix, loc = self.matrix, self.vector.initial.detach().contiguous()
        own = self.family.initial(matrix.initial, matrix.event_dim, scale, matrix.support)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix.initial.detach()))
        variance = inverse.diagonal(dim1=-2, dim2=-1).mean(-1)
        strength = (variance / scale**2).expand(loc.shape[:-1]).contiguous()
        return {
            matrix.name: own,
            self.vector.name: {
                "loc": Initial(loc, constraints.real, 1),
                "strength": Initial(strength, constraints.positive, 0),
            },
        }

    def distribution(self, site: str, params: BlockParams, drawn: Mapping[str, Tensor]) -> Any:
        """Wishart, or normal given it."""
        matrix = self.matrix
        if site == matrix.name:
            return self.family.distribution(params[site], matrix.support, matrix.event_dim)
        own = params[site]
        precision = own["strength"][..., None, None] * drawn[matrix.name]
        return dist.MultivariateNormal(own["loc"], precision_matrix=precision)

    def median(self, site: str, params: BlockParams) -> Tensor:
        """The location; there is none of the matrix."""
        if site == self.vector.name:
            return params[site]["loc"].detach().clone()
        return super().median(site, params)
