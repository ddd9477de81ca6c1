"""Dirichlets on the simplex: conjugate to category probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.base import Initial
from pyro_klmodes.guides.site_families.beta import beta_quantile
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.simplex_moments import (
    concentration_around,
    concentration_with_mean_logs,
)
from pyro_klmodes.guides.site_families.supports import is_simplex

__all__ = ["Dirichlet"]


@dataclass(frozen=True)
class Dirichlet(ExponentialFamily):
    """``x ~ Dirichlet(concentration)`` for every vector of a site on the simplex.

    Parameter ``concentration``: ``(*batch, *event)``, the last dimension is the simplex. Natural
    parameters ``concentration - 1`` for the statistics ``log x``, both ``(*members, n)``. Starts
    with the log-ratios of the value as mean log-ratios, and ``mean_i trigamma(concentration_i) =
    scale^2 / 2``, so that an average ``log x_i - log x_j`` has the standard deviation ``scale``.

    Example:
        >>> from torch.distributions import constraints
        >>> start = Dirichlet().initial(torch.full((3,), 1 / 3), 1, 1.0, constraints.simplex)
        >>> start["concentration"].value
        tensor([2.4600, 2.4600, 2.4600])
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (1,)

    def accepts(self, support: Constraint) -> bool:
        """The simplex."""
        return is_simplex(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Mean log-ratios are those of the value, their typical deviation is ``scale``."""
        inside = value.detach().clamp(min=torch.finfo(value.dtype).eps)
        concentration = concentration_around(inside, scale)
        return {"concentration": Initial(concentration, constraints.positive, event_dim)}

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``Dirichlet(concentration)``."""
        return dist.Dirichlet(params["concentration"]).to_event(event_dim - 1)

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``concentration - 1``."""
        return (params["concentration"] - 1,)

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``concentration = eta + 1``."""
        return {"concentration": natural[0] + 1}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``log x``."""
        return (value.log(),)

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``sum_i log Gamma(a_i) - log Gamma(sum_i a_i)``."""
        concentration = natural[0] + 1
        return concentration.lgamma().sum(-1) - concentration.sum(-1).lgamma()

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``digamma(a_i) - digamma(sum_j a_j)``."""
        concentration = params["concentration"]
        return (concentration.digamma() - concentration.sum(-1, keepdim=True).digamma(),)

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """A bracketed Newton iteration in ``digamma(sum_j a_j)``."""
        return {"concentration": concentration_with_mean_logs(mean[0])}

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """Those of the marginals, ``Beta(a_i, sum_j a_j - a_i)``; they need not sum to one."""
        concentration = params["concentration"]
        rest = concentration.sum(-1, keepdim=True) - concentration
        return beta_quantile(concentration, rest, levels)
