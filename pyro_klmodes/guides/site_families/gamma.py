"""Gammas on the positive half line: conjugate to rates and precisions."""

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
from pyro_klmodes.guides.site_families.roots import increasing_root, inverse_trigamma, trigamma
from pyro_klmodes.guides.site_families.supports import is_positive

__all__ = ["Gamma"]


@dataclass(frozen=True)
class Gamma(ExponentialFamily):
    """``x ~ Gamma(concentration, rate)`` in every entry of a positive site.

    Parameters ``concentration``, ``rate``: ``(*batch, *event)``. Natural parameters
    ``(concentration - 1, -rate)`` for the statistics ``(log x, x)``. Starts with
    ``E[log x] = log value`` and ``sd[log x] = scale``, that is ``trigamma(concentration) =
    scale^2``: a concentration of 1.43 for the scale 1.

    Example:
        >>> from torch.distributions import constraints
        >>> start = Gamma().initial(torch.tensor(3.0), 0, 1.0, constraints.positive)
        >>> {name: round(p.value.item(), 3) for name, p in start.items()}
        {'concentration': 1.426, 'rate': 0.322}
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (0, 0)

    def accepts(self, support: Constraint) -> bool:
        """The half line from zero."""
        return is_positive(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Mean and standard deviation of log x are ``log value`` and ``scale``."""
        positive = value.detach().double().clamp(min=torch.finfo(value.dtype).tiny)
        concentration = inverse_trigamma(torch.full_like(positive, scale**2))
        rate = concentration.digamma().exp() / positive
        return {
            "concentration": Initial(concentration.to(value), constraints.positive, event_dim),
            "rate": Initial(rate.to(value), constraints.positive, event_dim),
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``Gamma(concentration, rate)``."""
        return dist.Gamma(params["concentration"], params["rate"]).to_event(event_dim)

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(concentration - 1, -rate)``."""
        return params["concentration"] - 1, -params["rate"]

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``concentration = eta_1 + 1``, ``rate = -eta_2``."""
        return {"concentration": natural[0] + 1, "rate": -natural[1]}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``(log x, x)``."""
        return value.log(), value

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``log Gamma(a) - a log b``, with a = concentration and b = rate."""
        concentration, rate = natural[0] + 1, -natural[1]
        return concentration.lgamma() - concentration * rate.log()

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(digamma(a) - log b, a / b)``."""
        concentration, rate = params["concentration"], params["rate"]
        return concentration.digamma() - rate.log(), concentration / rate

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Newton for ``log a - digamma(a) = log m_2 - m_1`` (Minka 2002), ``b = a / m_2``."""
        mean_log, mean_x = (m.detach().double() for m in mean)
        gap = mean_x.log() - mean_log

        def excess(log_a: Tensor) -> tuple[Tensor, Tensor]:
            a = log_a.exp()
            return gap - (log_a - a.digamma()), a * trigamma(a) - 1

        # log a - digamma(a) is between 1/(2a) and 1/a
        concentration = increasing_root(excess, -(2 * gap).log()).exp()
        rate = concentration / mean_x
        return {"concentration": concentration.to(mean[0]), "rate": rate.to(mean[0])}

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """The inverse of the regularised incomplete gamma function."""
        concentration, rate = params["concentration"].detach(), params["rate"].detach()
        level = column(levels, concentration).double().cpu().numpy()
        standard = special.gammaincinv(concentration.double().cpu().numpy(), level)
        return torch.as_tensor(standard).to(rate) / rate
