"""One site in coordinates in which the Fisher information of ``q`` is the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import NotDefined, UnsupportedStructure
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Gamma,
    MultivariateNormal,
    Normal,
    Wishart,
)
from pyro_klmodes.inference.linear_response.continuous import (
    BetaCoordinates,
    GammaCoordinates,
    NormalCoordinates,
)
from pyro_klmodes.inference.linear_response.coordinates import Coordinates, Params
from pyro_klmodes.inference.linear_response.coupled import (
    DirichletCoordinates,
    FullNormalCoordinates,
    WishartCoordinates,
)
from pyro_klmodes.inference.linear_response.states import (
    BernoulliCoordinates,
    CategoricalCoordinates,
)

__all__ = ["WhiteSite", "coordinates_of", "white"]

#: numbers in all Fisher information matrices of a site
_MOST = 50_000_000


def coordinates_of(latent: Latent, family: Any, params: Params) -> Coordinates:
    """The coordinates for a family.

    Raises:
        NotDefined: naming the site, if there are none.
    """
    support = latent.support
    if isinstance(family, MultivariateNormal):
        return FullNormalCoordinates(family, support, latent.event_shape[-1])
    if isinstance(family, Dirichlet):
        return DirichletCoordinates(family, support, latent.event_shape[-1])
    if isinstance(family, Wishart):
        return WishartCoordinates(family, support, latent.event_shape[-1])
    if isinstance(family, Categorical):
        return CategoricalCoordinates(family, support, params)
    plain = ((Bernoulli, BernoulliCoordinates), (Beta, BetaCoordinates), (Gamma, GammaCoordinates))
    for kind, coordinates in plain:
        if isinstance(family, kind):
            return coordinates(family, support)
    if isinstance(family, Normal):
        return NormalCoordinates(family, support)
    raise NotDefined(
        f"site '{latent.name}' has the family {family!r}, for which linear response is not "
        "defined here. It is for Normal, LogNormal, MultivariateNormal, Gamma, Beta, Dirichlet, "
        "Wishart, Bernoulli and Categorical."
    )


@dataclass(frozen=True)
class WhiteSite:
    """A site at a fit; its white coordinates are zero there.

    Attributes:
        name: of the site.
        plates: its plates with their dimension, counted from the right of ``batch_dim``.
        batch_dim: how many of the first dimensions of its elements are plates.
        coordinates: of its family.
        start: free numbers at the fit, ``(*elements, M)``.
        spread: ``F^(-1/2)`` for the Fisher information F of ``q``, ``(*elements, M, M)``.
        pinned: numbers that are not moved, ``(*elements, M)``.
        absent: elements that are masked, and no part of the model, ``(*elements)``.
    """

    name: str
    plates: dict[str, int]
    batch_dim: int
    coordinates: Coordinates
    start: Tensor
    spread: Tensor
    pinned: Tensor
    absent: Tensor

    def params(
        self,
        white: Tensor,  # (*elements, M)
    ) -> dict[str, Tensor]:
        """The parameters at white coordinates."""
        moved = white.masked_fill(self.pinned, 0.0)
        shift = (self.spread @ moved.unsqueeze(-1)).squeeze(-1)
        return self.coordinates.params(self.start + shift)

    def mean(
        self,
        white: Tensor,  # (*elements, M)
    ) -> Tensor:  # (*elements, V)
        """The mean of the value, flat.

        Raises:
            NotDefined: naming the site, if it has no closed form.
        """
        try:
            mean = self.coordinates.mean(self.params(white))
        except NotDefined as error:
            raise NotDefined(
                f"site '{self.name}' has the family {self.coordinates.family!r}, which {error}: "
                "its mean has no closed form. Give it a family on its support (Dirichlet, "
                "Wishart), or leave it out of the answer: sites=[...]."
            ) from error
        return mean.reshape(*self.start.shape[:-1], -1)

    def slopes(self) -> Tensor:  # (*elements, V, M)
        """The derivative of the mean in white coordinates."""
        white = torch.zeros_like(self.start, requires_grad=True)
        mean = self.mean(white)
        rows = [
            torch.autograd.grad(mean[..., v].sum(), white, retain_graph=True)[0]
            for v in range(mean.shape[-1])
        ]
        return torch.stack(rows, -2)

    def absent_entries(self) -> Tensor:  # (entries,), bool
        """Which entries of the value are masked."""
        values = max(1, self.coordinates.value_shape.numel())
        return self.absent.reshape(-1, 1).expand(-1, values).reshape(-1)

    def axis(self, plate: str) -> int:
        """The dimension of a plate, from the left."""
        return self.batch_dim + self.plates[plate]


def white(
    latent: Latent,
    family: Any,
    params: Params,
    mask: Tensor | None,  # (*batch)
) -> WhiteSite:
    """The white coordinates of a site.

    Raises:
        NotDefined: naming the site, if its family has none.
        UnsupportedStructure: naming the site, if they would take too much memory.
    """
    coordinates = coordinates_of(latent, family, params)
    start = coordinates.free(params)
    pinned = coordinates.pinned(start)
    batch_dim = len(latent.batch_shape)
    absent = torch.zeros_like(pinned[..., :0].any(-1))
    if mask is not None:
        masked = ~mask.expand(latent.batch_shape)
        absent = masked.reshape(*masked.shape, *[1] * (absent.dim() - batch_dim)) | absent
    pinned = pinned | absent.unsqueeze(-1)
    if start.numel() * start.shape[-1] > _MOST:
        raise UnsupportedStructure(
            f"site '{latent.name}' has {start.shape[-1]:,} parameters that depend on each other "
            f"in each of {absent.numel():,} elements; their Fisher information would have "
            f"{start.numel() * start.shape[-1]:,} numbers, and {_MOST:,} is the limit."
        )
    spread = _inverse_root(_fisher(coordinates, start), pinned)
    plates = dict(latent.plates)
    return WhiteSite(latent.name, plates, batch_dim, coordinates, start, spread, pinned, absent)


def _fisher(
    coordinates: Coordinates,
    start: Tensor,  # (*elements, M)
) -> Tensor:  # (*elements, M, M)
    """The Fisher information of every element."""
    free = start.clone().requires_grad_()
    params = {name: p.detach() for name, p in coordinates.params(start).items()}
    mean = tuple(m.detach() for m in coordinates.family.mean_parameters(params))
    (slope,) = torch.autograd.grad(coordinates.divergence(free, mean), free, create_graph=True)
    columns = [
        torch.autograd.grad(slope[..., m].sum(), free, retain_graph=True)[0]
        for m in range(start.shape[-1])
    ]
    return torch.stack(columns, -1)


def _inverse_root(
    fisher: Tensor,  # (*elements, M, M)
    pinned: Tensor,  # (*elements, M)
) -> Tensor:  # (*elements, M, M), W with W W' = F^-1
    free = ~pinned
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    eye = torch.eye(fisher.shape[-1], dtype=fisher.dtype, device=fisher.device)
    kept = torch.where(both, 0.5 * (fisher + fisher.mT), eye)
    return torch.linalg.solve_triangular(
        torch.linalg.cholesky(kept).mT, eye.expand_as(kept), upper=True
    )
