"""Families that are exponential families.

The density of one member at a value x is

    q(x) = h(x) exp(<eta, t(x)> - A(eta)),

with the natural parameters eta, the sufficient statistics t, the log-normaliser A and the base
measure h (Wainwright and Jordan 2008). The gradient of A is the vector of mean parameters
``E[t(x)]``. Coordinate ascent sets eta to the expected natural parameters of the complete
conditional; the natural gradient in eta is the plain gradient in the mean parameters.

A site of shape ``(*batch, *event)`` has one member for every element of ``*batch`` and of those
event dimensions that the member does not use itself: a Gamma uses none, a Dirichlet one, a Wishart
two. ``natural``, ``sufficient_statistics`` and ``mean_parameters`` are tuples with one tensor for
each statistic, ``(*members, *statistic)``; ``log_normaliser`` is ``(*members)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.base import SiteFamily

__all__ = ["ExponentialFamily"]


class ExponentialFamily(SiteFamily):
    """A family with natural and mean parameters."""

    #: number of dimensions of each sufficient statistic of one member
    statistic_dims: ClassVar[tuple[int, ...]]

    @abstractmethod
    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Natural parameters eta of the parameters by name."""

    @abstractmethod
    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Parameters by name of the natural parameters."""

    @abstractmethod
    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """The statistics t of a constrained value."""

    @abstractmethod
    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """A(eta), differentiable."""

    @abstractmethod
    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Expected sufficient statistics, differentiable."""

    @abstractmethod
    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Parameters whose expected statistics are ``mean``: maximum likelihood, no gradients."""

    def log_base_measure(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
        event_dim: int,
    ) -> Tensor:  # (*batch)
        """``log h``, summed over the event; zero unless a family says otherwise."""
        return value.new_zeros(value.shape[: value.dim() - event_dim])

    def inner(
        self,
        natural: tuple[Tensor, ...],
        statistics: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``<eta, t>``, summed over the dimensions of each statistic."""
        parts = zip(natural, statistics, self.statistic_dims, strict=True)
        terms = [sum_rightmost(eta * t, dim) for eta, t, dim in parts]
        return torch.stack(torch.broadcast_tensors(*terms), -1).sum(-1)

    def log_prob(
        self,
        natural: tuple[Tensor, ...],
        value: Tensor,  # (*batch, *event)
        support: Constraint,
        event_dim: int,
    ) -> Tensor:  # (*batch)
        """``log h(x) + <eta, t(x)> - A(eta)``, what ``distribution(...).log_prob(x)`` gives.

        The value has all batch dimensions; those of ``natural`` broadcast against them.
        """
        statistics = self.sufficient_statistics(value, support)
        members = self.inner(natural, statistics) - self.log_normaliser(natural)
        batch_dim = value.dim() - event_dim
        summed = sum_rightmost(members, members.dim() - batch_dim)
        return summed + self.log_base_measure(value, support, event_dim)
