"""The noise that a flow transforms, as values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow.noise import GaussianNoise, StudentTNoise
from pyro_klmodes.guides.joint.base import JointFamily
from pyro_klmodes.guides.joint.mixture import Mixture
from pyro_klmodes.guides.joint.spread import Spread, Start

__all__ = ["Base", "GaussianBase", "MixtureBase", "StudentTBase"]


class Base(ABC):
    """A base density, as a value; use one of the subclasses."""

    @abstractmethod
    def build(
        self,
        like: Tensor,  # (D,)
    ) -> JointFamily:
        """New parameters for vectors of the length, type and device of ``like``."""


@dataclass(frozen=True)
class GaussianBase(Base):
    """Independent standard normals.

    Whatever the flow learns, its tails stay Gaussian, because the flow is linear far out (Jaini,
    Kobyzev, Yu and Brubaker, 2020, Tails of Lipschitz triangular flows): for a target of heavier
    tails use ``StudentTBase`` or a ``TailLayer``.

    Example:
        >>> GaussianBase().build(torch.zeros(2)).density().log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    def build(
        self,
        like: Tensor,  # (D,)
    ) -> JointFamily:
        """Noise without parameters."""
        return GaussianNoise(like)


@dataclass(frozen=True)
class StudentTBase(Base):
    """Independent Student t's of scale one, each coordinate with its own degrees of freedom.

    Args:
        df: the degrees of freedom at the start.
        learn: whether they are learned.

    Raises:
        InvalidArgument: if df is not positive and finite.

    Example:
        >>> StudentTBase(df=1.0).build(torch.zeros(1)).density().log_prob(torch.zeros(1)).exp()
        tensor(0.3183, grad_fn=<ExpBackward0>)
    """

    df: float = 5.0
    learn: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.df < math.inf:
            raise InvalidArgument(f"df is {self.df}; degrees of freedom are positive and finite.")

    def build(
        self,
        like: Tensor,  # (D,)
    ) -> JointFamily:
        """Noise with the degrees of freedom as its parameter."""
        return StudentTNoise(torch.full_like(like, self.df), learn=self.learn)


@dataclass(frozen=True)
class MixtureBase(Base):
    """A mixture of Gaussians with diagonal scales, for targets of several modes.

    A flow is continuous, so it draws bridges between modes unless its base has them apart.
    Locations, scales and weights of the components are learned, through implicit gradients of the
    draws (Figurnov, Mohamed and Mnih, 2018).

    Args:
        num_components: the number of components, of equal weight and scale one at the start.
        start: where their locations start, in units of the flow's scale: ``Spread(radius)``,
            ``Sobol(radius)`` or ``At(points)``.

    Raises:
        InvalidArgument: for no components.

    Example:
        >>> MixtureBase(num_components=8, start=Spread(radius=2.0))
        MixtureBase(num_components=8, start=Spread(radius=2.0))
    """

    num_components: int = 4
    start: Start = field(default_factory=Spread)

    def __post_init__(self) -> None:
        if self.num_components < 1:
            raise InvalidArgument(
                f"num_components is {self.num_components}; a mixture has at least one."
            )

    def build(
        self,
        like: Tensor,  # (D,)
    ) -> JointFamily:
        """Noise with the components as its parameters."""
        return Mixture(torch.zeros_like(like), num_components=self.num_components, start=self.start)
