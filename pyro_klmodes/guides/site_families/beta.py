"""Betas on the unit interval: conjugate to probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from scipy import special
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.base import Initial, column
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.simplex_moments import (
    concentration_around,
    concentration_with_mean_logs,
)
from pyro_klmodes.guides.site_families.supports import is_unit_interval

__all__ = ["Beta"]


@dataclass(frozen=True)
class Beta(ExponentialFamily):
    """``x ~ Beta(concentration1, concentration0)`` in every entry of a site in (0, 1).

    Parameters ``concentration1`` (a) and ``concentration0`` (b): ``(*batch, *event)``. Natural
    parameters ``(a - 1, b - 1)`` for the statistics ``(log x, log(1 - x))``. Starts with
    ``E[logit x] = logit value`` and ``sd[logit x] = scale``: ``digamma(a) - digamma(b)`` and
    ``trigamma(a) + trigamma(b)`` are the mean and the variance.

    Example:
        >>> from torch.distributions import constraints
        >>> start = Beta().initial(torch.tensor(0.5), 0, 1.0, constraints.unit_interval)
        >>> {name: round(p.value.item(), 3) for name, p in start.items()}
        {'concentration1': 2.46, 'concentration0': 2.46}
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (0, 0)

    def accepts(self, support: Constraint) -> bool:
        """The interval from zero to one."""
        return is_unit_interval(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Mean and standard deviation of logit x are ``logit value`` and ``scale``."""
        eps = torch.finfo(value.dtype).eps
        inside = value.detach().clamp(eps, 1 - eps)
        both = concentration_around(torch.stack([inside, 1 - inside], -1), scale)
        names = ("concentration1", "concentration0")
        return {
            name: Initial(both[..., i].contiguous(), constraints.positive, event_dim)
            for i, name in enumerate(names)
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``Beta(concentration1, concentration0)``."""
        beta = dist.Beta(params["concentration1"], params["concentration0"])
        return beta.to_event(event_dim)

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(a - 1, b - 1)``."""
        return params["concentration1"] - 1, params["concentration0"] - 1

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``a = eta_1 + 1``, ``b = eta_2 + 1``."""
        return {"concentration1": natural[0] + 1, "concentration0": natural[1] + 1}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``(log x, log(1 - x))``."""
        return value.log(), (-value).log1p()

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``log Gamma(a) + log Gamma(b) - log Gamma(a + b)``."""
        a, b = natural[0] + 1, natural[1] + 1
        return a.lgamma() + b.lgamma() - (a + b).lgamma()

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(digamma(a) - digamma(a + b), digamma(b) - digamma(a + b))``."""
        a, b = params["concentration1"], params["concentration0"]
        total = (a + b).digamma()
        return a.digamma() - total, b.digamma() - total

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The Dirichlet's solution for two entries."""
        both = concentration_with_mean_logs(torch.stack(mean, -1))
        return {"concentration1": both[..., 0], "concentration0": both[..., 1]}

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """The inverse of the regularised incomplete beta function."""
        return beta_quantile(params["concentration1"], params["concentration0"], levels)


def beta_quantile(
    a: Tensor,  # (*shape)
    b: Tensor,  # (*shape)
    levels: Tensor,  # (Q,)
) -> Tensor:  # (Q, *shape)
    """Quantiles of Beta(a, b), no gradients."""
    level = column(levels, a).double().cpu().numpy()
    first, second = (x.detach().double().cpu().numpy() for x in (a, b))
    return torch.as_tensor(special.betaincinv(first, second, level)).to(a.detach())
