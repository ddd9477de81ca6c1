"""Free real numbers for the parameters of a family, and the mean and variance of its value."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import ExponentialFamily

__all__ = ["Coordinates", "Params", "certain_below"]

Params = Mapping[str, Tensor]  # of one site


def certain_below(dtype: torch.dtype) -> float:
    """Log of the probability below which a state is taken as impossible.

    There, derivatives of a probability have no correct digits left, or underflow.

    Example:
        >>> round(certain_below(torch.float64), 1)
        -24.0
    """
    return 2 / 3 * math.log(torch.finfo(dtype).eps)


class Coordinates(ABC):
    r"""Coordinates of ``q`` of one site.

    A site has elements that are independent of each other under ``q``, ``(*elements)``: those of
    its plates, and the entries of its event if the family does not couple them. Each has M free
    numbers and a value of shape ``value_shape``, whose mean and variance are closed functions.

    Args:
        family: of the site.
        support: of the site.
    """

    family: ExponentialFamily
    #: shape of the value of one element
    value_shape: torch.Size = torch.Size()

    def __init__(self, family: Any, support: Any) -> None:
        self.family, self.support = family, support

    @abstractmethod
    def free(self, params: Params) -> Tensor:  # (*elements, M)
        """The free numbers of given parameters."""

    @abstractmethod
    def params(
        self,
        free: Tensor,  # (*elements, M)
    ) -> dict[str, Tensor]:
        """The parameters of given free numbers."""

    @abstractmethod
    def mean(self, params: Params) -> Tensor:  # (*elements, *value_shape)
        """The mean of the value under ``q``, differentiable."""

    @abstractmethod
    def variance(self, params: Params) -> Tensor:  # (*elements, *value_shape)
        """The variance of every entry of the value under ``q``."""

    def pinned(
        self,
        free: Tensor,  # (*elements, M)
    ) -> Tensor:  # (*elements, M), bool
        """Free numbers that change nothing in the precision of the numbers."""
        return torch.zeros_like(free, dtype=torch.bool)

    def divergence(
        self,
        free: Tensor,  # (*elements, M)
        mean: tuple[Tensor, ...],
    ) -> Tensor:  # ()
        """``A(eta) - <eta, mean>``: a divergence from the member with given mean parameters.

        Its Hessian there is the Fisher information of ``q`` in the free numbers.
        """
        natural = self.family.natural(self.params(free))
        members = self.family.log_normaliser(natural) - self.family.inner(natural, mean)
        return members.sum()
