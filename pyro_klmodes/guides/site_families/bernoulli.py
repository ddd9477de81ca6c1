"""Bernoullis for sites that are zero or one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

from pyro_klmodes.guides.site_families.base import Initial, column
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.supports import is_boolean

__all__ = ["Bernoulli"]


@dataclass(frozen=True)
class Bernoulli(ExponentialFamily):
    """``x ~ Bernoulli(logits=logits)`` in every entry of a site with values 0 and 1.

    Parameter ``logits``: ``(*batch, *event)``, which is the natural parameter for the statistic x.
    Starts with log-odds ``1 / scale`` in favour of the value: 0.73 for the scale 1, near certainty
    for a small scale, a coin for a large one.

    Limits: draws carry no gradients.

    Example:
        >>> from torch.distributions import constraints
        >>> value = torch.tensor([0.0, 1.0])
        >>> start = Bernoulli().initial(value, 0, 0.5, constraints.boolean)
        >>> start["logits"].value
        tensor([-2.,  2.])
    """

    discrete: ClassVar[bool] = True
    statistic_dims: ClassVar[tuple[int, ...]] = (0,)

    def accepts(self, support: Constraint) -> bool:
        """Zero and one."""
        return is_boolean(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Log-odds ``1 / scale`` in favour of the value."""
        dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
        logits = (2 * value.detach().to(dtype) - 1) / scale
        return {"logits": Initial(logits, constraints.real, event_dim)}

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``Bernoulli(logits=logits)``."""
        return dist.Bernoulli(logits=params["logits"]).to_event(event_dim)

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The logits."""
        return (params["logits"],)

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The logits."""
        return {"logits": natural[0]}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """The value."""
        return (value,)

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``log(1 + exp(eta))``."""
        return softplus(natural[0])

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The probability of one."""
        return (params["logits"].sigmoid(),)

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The log-odds of the probability."""
        return {"logits": torch.logit(mean[0].detach())}

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """One where the level exceeds the probability of zero."""
        logits = params["logits"].detach()
        return (column(levels, logits) > (-logits).sigmoid()).to(logits)
