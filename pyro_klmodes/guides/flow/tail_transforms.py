"""Maps of each coordinate that give Gaussian noise tails of a power law."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.guides.flow.tail_functions import (
    exponential_to_half_normal,
    growth,
    half_normal_to_exponential,
    log_growth_slope,
    log_hazard,
    shrinkage,
)

__all__ = ["ParetoTails", "StudentTails", "TailTransform"]


@dataclass(frozen=True)
class TailTransform(ABC):
    """An odd increasing function on each side of zero, with a tail weight of its own.

    Attributes:
        positive: ``(D,)`` tail weights above zero.
        negative: ``(D,)`` tail weights below zero.
    """

    positive: Tensor
    negative: Tensor

    def to_values(
        self,
        z: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch)
        """Make the tails heavy, with the log-determinant."""
        # not z.abs() * z.sign(), which have no derivative at zero
        below = z < 0
        size, log_slope = self._outwards(torch.where(below, -z, z), self._weight(below))
        return torch.where(below, -size, size), log_slope.sum(-1)

    def to_noise(
        self,
        x: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch)
        """Take the tails back, with the log-determinant."""
        below = x < 0
        weight = self._weight(below)
        size = self._inwards(torch.where(below, -x, x), weight)
        _, log_slope = self._outwards(size, weight)
        return torch.where(below, -size, size), -log_slope.sum(-1)

    def _weight(self, below: Tensor) -> Tensor:
        return torch.where(below, self.negative, self.positive)

    @abstractmethod
    def _outwards(
        self,
        z: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch, D)
        """The distance from zero, and the logarithm of its derivative."""

    @abstractmethod
    def _inwards(
        self,
        x: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        """The inverse of the distance from zero."""


@dataclass(frozen=True)
class ParetoTails(TailTransform):
    """``(erfc(z / sqrt 2)^-weight - 1) / weight``: each side is exactly generalised Pareto."""

    def _outwards(
        self,
        z: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch, D)
        a = half_normal_to_exponential(z)
        return a * growth(weight * a), log_growth_slope(weight * a) + log_hazard(z)

    def _inwards(
        self,
        x: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        return exponential_to_half_normal(x * shrinkage(weight * x))


@dataclass(frozen=True)
class StudentTails(TailTransform):
    """``sqrt((exp(weight z^2) - 1) / weight)``: nearly Student t, the identity at weight zero."""

    def _outwards(
        self,
        z: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> tuple[Tensor, Tensor]:  # (*batch, D), (*batch, D)
        t = weight * z.square()
        grown = growth(t)
        return z * grown.sqrt(), log_growth_slope(t) - 0.5 * grown.log()

    def _inwards(
        self,
        x: Tensor,  # (*batch, D) non-negative
        weight: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        return x * shrinkage(weight * x.square()).sqrt()
