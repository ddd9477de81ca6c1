"""Independent normals on the unconstrained space: the family for any continuous support."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides.site_families.base import Initial, column
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.unconstrained import (
    bijection,
    has_bijection,
    is_elementwise,
    is_real,
    unconstrained_dim,
)

__all__ = ["Normal"]


@dataclass(frozen=True)
class Normal(ExponentialFamily):
    """``u ~ Normal(loc, scale)`` in every unconstrained coordinate, ``x = bijection(u)``.

    Parameters ``loc``, ``scale``: ``(*batch, *unconstrained_event)``. Natural parameters
    ``(loc / scale^2, -1 / (2 scale^2))`` for the statistics ``(u, u^2)`` of the unconstrained
    value. The base measure holds ``(2 pi)^(-1/2)`` for each coordinate and the Jacobian of the
    bijection. Starts at the unconstrained value with ``scale`` as its standard deviation.

    Limits: quantiles are given where the bijection acts entry by entry.

    Example:
        >>> from torch.distributions import constraints
        >>> family = Normal()
        >>> start = family.initial(torch.tensor(1.0), 0, 0.5, constraints.positive)
        >>> params = {name: p.value for name, p in start.items()}
        >>> params
        {'loc': tensor(0.), 'scale': tensor(0.5000)}
        >>> family.median(params, constraints.positive)
        tensor(1.)
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (0, 0)

    def accepts(self, support: Constraint) -> bool:
        """Any support with a bijection from unconstrained space."""
        return has_bijection(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """The unconstrained value and ``scale`` in every coordinate."""
        transform = bijection(support)
        loc = transform.inv(value.detach()).contiguous()
        dim = unconstrained_dim(transform, event_dim)
        return {
            "loc": Initial(loc, constraints.real, dim),
            "scale": Initial(torch.full_like(loc, scale), constraints.positive, dim),
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """A normal, pushed through the bijection."""
        transform = bijection(support)
        dim = unconstrained_dim(transform, event_dim)
        base = dist.Normal(params["loc"], params["scale"]).to_event(dim)
        if is_real(support):
            return base
        return dist.TransformedDistribution(base, [transform])

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(loc / scale^2, -1 / (2 scale^2))``."""
        precision = params["scale"].pow(-2)
        return params["loc"] * precision, -0.5 * precision

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``scale^2 = -1 / (2 eta_2)``, ``loc = eta_1 scale^2``."""
        first, second = natural
        variance = -0.5 / second
        return {"loc": first * variance, "scale": variance.sqrt()}

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``(u, u^2)`` of the unconstrained value."""
        u = bijection(support).inv(value)
        return u, u * u

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``-eta_1^2 / (4 eta_2) - log(-2 eta_2) / 2``."""
        first, second = natural
        return -first * first / (4 * second) - 0.5 * (-2 * second).log()

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(loc, loc^2 + scale^2)``."""
        return params["loc"], params["loc"].square() + params["scale"].square()

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``loc = m_1``, ``scale^2 = m_2 - m_1^2``."""
        first, second = (m.detach() for m in mean)
        return {"loc": first, "scale": (second - first.square()).sqrt()}

    def log_base_measure(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
        event_dim: int,
    ) -> Tensor:  # (*batch)
        """``-log |dx/du| - (number of coordinates) log(2 pi) / 2``."""
        transform = bijection(support)
        u = transform.inv(value)
        batch_dim = value.dim() - event_dim
        log_det = transform.log_abs_det_jacobian(u, value)
        coordinates = math.prod(u.shape[batch_dim:])
        log_det = sum_rightmost(log_det, log_det.dim() - batch_dim)
        return -log_det - 0.5 * coordinates * math.log(2 * math.pi)

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """The bijection of the normal quantile, or of the opposite one where it decreases."""
        transform = bijection(support)
        if not is_elementwise(transform):
            raise NotDefined(self._no_quantiles())
        loc, scale = params["loc"].detach(), params["scale"].detach()
        step = scale * torch.special.ndtri(column(levels, loc))
        increasing = transform(loc + scale) >= transform(loc)
        return torch.where(increasing, transform(loc + step), transform(loc - step))
