"""Normals with a full covariance over the vector of a site: conjugate to coefficients and means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.base import Initial, column
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.unconstrained import is_real

__all__ = ["MultivariateNormal"]


@dataclass(frozen=True)
class MultivariateNormal(ExponentialFamily):
    """``x ~ Normal(loc, scale_tril scale_tril')`` for every vector of a real site.

    Parameters ``loc``: ``(*batch, D)`` and ``scale_tril``: ``(*batch, D, D)``. Natural parameters
    ``(P loc, -P / 2)``, P the inverse covariance, for the statistics ``(x, x x')``. Starts at the
    value with ``scale`` as the standard deviation of every entry, independent.

    Limits: real sites with one event dimension. D^2 numbers for every vector.

    Source: Wainwright and Jordan (2008).

    Example:
        >>> start = MultivariateNormal().initial(torch.zeros(2), 1, 0.5, constraints.real_vector)
        >>> start["scale_tril"].value
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (1, 2)

    def accepts(self, support: Constraint) -> bool:
        """Real vectors."""
        return is_real(support) and support.event_dim == 1

    def initial(
        self,
        value: Tensor,  # (*batch, D)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """The value, and ``scale`` in every entry."""
        loc = value.detach().contiguous()
        scale_tril = torch.full_like(loc, scale).diag_embed()
        return {
            "loc": Initial(loc, constraints.real, 1),
            "scale_tril": Initial(scale_tril, constraints.lower_cholesky, 2),
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``MultivariateNormal(loc, scale_tril=scale_tril)``."""
        return dist.MultivariateNormal(params["loc"], scale_tril=params["scale_tril"])

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(P loc, -P / 2)``."""
        loc, scale_tril = params["loc"], params["scale_tril"]
        first = torch.cholesky_solve(loc.unsqueeze(-1), scale_tril).squeeze(-1)
        return first, -0.5 * torch.cholesky_inverse(scale_tril)

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The covariance is ``(-2 eta_2)^{-1}``, ``loc`` the covariance times ``eta_1``."""
        first, second = natural
        factor = torch.linalg.cholesky(-2 * second)
        loc = torch.cholesky_solve(first.unsqueeze(-1), factor).squeeze(-1)
        return {"loc": loc, "scale_tril": torch.linalg.cholesky(torch.cholesky_inverse(factor))}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, D)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``(x, x x')``."""
        return value, value.unsqueeze(-1) * value.unsqueeze(-2)

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*batch)
        """``eta_1' (-2 eta_2)^{-1} eta_1 / 2 - log det(-2 eta_2) / 2``."""
        first, second = natural
        factor = torch.linalg.cholesky(-2 * second)
        white = torch.linalg.solve_triangular(factor, first.unsqueeze(-1), upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * white.square().sum((-2, -1)) - log_det

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(loc, loc loc' + covariance)``."""
        loc, scale_tril = params["loc"], params["scale_tril"]
        return loc, loc.unsqueeze(-1) * loc.unsqueeze(-2) + scale_tril @ scale_tril.mT

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``loc = m_1``, the covariance is ``m_2 - m_1 m_1'``."""
        first, second = (m.detach() for m in mean)
        covariance = second - first.unsqueeze(-1) * first.unsqueeze(-2)
        return {"loc": first, "scale_tril": torch.linalg.cholesky(covariance)}

    def log_base_measure(
        self,
        value: Tensor,  # (*batch, D)
        support: Constraint,
        event_dim: int,
    ) -> Tensor:  # (*batch)
        """``-D log(2 pi) / 2``."""
        constant = -0.5 * value.shape[-1] * math.log(2 * math.pi)
        return value.new_full(value.shape[:-1], constant)

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, D)
        """Those of the normal marginals."""
        loc = params["loc"].detach()
        scale = params["scale_tril"].detach().square().sum(-1).sqrt()
        return loc + scale * torch.special.ndtri(column(levels, loc))
