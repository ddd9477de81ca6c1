"""Categoricals for sites with values 0, ..., n-1."""

from __future__ import annotations

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
from pyro_klmodes.guides.site_families.supports import number_of_categories

__all__ = ["Categorical"]


@dataclass(frozen=True)
class Categorical(ExponentialFamily):
    """``x ~ Categorical(logits=logits)`` in every entry of a site with values 0, ..., n-1.

    Parameter ``logits``: ``(*batch, *event, n)``, which are the natural parameters for the
    statistics ``1[x = i]``, an overcomplete form: a constant added to all logits changes nothing,
    and ``from_mean_parameters`` returns those that are log-probabilities. Starts with log-odds
    ``1 / scale`` in favour of the value against any other.

    Limits: draws carry no gradients. The site must have the same n everywhere.

    Example:
        >>> from torch.distributions import constraints
        >>> support = constraints.integer_interval(0, 2)
        >>> start = Categorical().initial(torch.tensor(1), 0, 1.0, support)
        >>> start["logits"].value
        tensor([0., 1., 0.])
    """

    discrete: ClassVar[bool] = True
    statistic_dims: ClassVar[tuple[int, ...]] = (1,)

    def accepts(self, support: Constraint) -> bool:
        """The integers from zero to a bound shared by all entries."""
        return number_of_categories(support) is not None

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """Log-odds ``1 / scale`` in favour of the value."""
        dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
        (chosen,) = self.sufficient_statistics(value.detach(), support)
        return {"logits": Initial(chosen.to(dtype) / scale, constraints.real, event_dim + 1)}

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``Categorical(logits=logits)``."""
        return dist.Categorical(logits=params["logits"]).to_event(event_dim)

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
        """``1[x = i]`` for i = 0, ..., n-1."""
        categories = torch.arange(number_of_categories(support) or 0, device=value.device)
        return ((value.unsqueeze(-1) == categories).to(torch.int64),)

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``log sum_i exp(eta_i)``."""
        return natural[0].logsumexp(-1)

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The probabilities."""
        return (params["logits"].softmax(-1),)

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The log-probabilities."""
        return {"logits": mean[0].detach().log()}

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """The first category at which the cumulated probability reaches the level."""
        cumulated = params["logits"].detach().softmax(-1).cumsum(-1)
        reached = cumulated[..., :-1] >= column(levels, cumulated)
        return (~reached).sum(-1)
