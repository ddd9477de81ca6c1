"""The structures a scale can have: diagonal, low rank plus diagonal, full."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.scale_base import ScaleParameters
from pyro_klmodes.guides.joint.scale_diagonal import DiagonalParameters
from pyro_klmodes.guides.joint.scale_full import FullParameters
from pyro_klmodes.guides.joint.scale_low_rank import LowRankParameters

__all__ = ["Diagonal", "Full", "LowRank", "ScaleStructure"]

# The length of a row of the initial factor of a low-rank scale.
_INITIAL_FACTOR = 0.1


class ScaleStructure(ABC):
    """How the coordinates of a joint density may depend on each other."""

    @abstractmethod
    def parameters(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> ScaleParameters:
        """Parameters that start with these marginal standard deviations.

        Leading dimensions are those of components, each with a scale of its own.
        """


@dataclass(frozen=True)
class Diagonal(ScaleStructure):
    """Independent coordinates: D parameters.

    Example:
        >>> Diagonal()
        Diagonal()
    """

    def parameters(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> DiagonalParameters:
        """Parameters that start with these standard deviations."""
        return DiagonalParameters(sd.detach().clone())


@dataclass(frozen=True)
class LowRank(ScaleStructure):
    """Covariance ``W W' + diag(d^2)`` with W of the given rank: D (rank + 1) parameters.

    W starts random, small and not at zero: the gradient of W is a multiple of W, which would stay
    at zero for good. Its rows have length 0.1 d on average (drawn by PyTorch's global generator),
    hence correlations start at one hundredth or so, and d is such that the standard deviations
    are as asked for.

    Args:
        rank: number of columns of W, at least 1.

    Raises:
        InvalidArgument: if the rank is less than 1, or (when parameters are made) more than D.

    Example:
        >>> LowRank(rank=3)
        LowRank(rank=3)
    """

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidArgument(
                f"rank is {self.rank}, but must be at least 1; use Diagonal() for no factors."
            )

    def parameters(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> LowRankParameters:
        """Parameters that start with these marginal standard deviations."""
        if self.rank > sd.shape[-1]:
            raise InvalidArgument(
                f"rank is {self.rank}, but the latents have only {sd.shape[-1]} dimensions; use "
                "Full(), or a smaller rank."
            )
        noise = torch.randn(*sd.shape, self.rank, dtype=sd.dtype, device=sd.device)
        factor = _INITIAL_FACTOR / math.sqrt(self.rank) * noise
        return LowRankParameters(sd.detach() / (1 + factor.square().sum(-1)).sqrt(), factor)


@dataclass(frozen=True)
class Full(ScaleStructure):
    """Any covariance, by its Cholesky factor: D (D + 1) / 2 parameters.

    Example:
        >>> Full()
        Full()
    """

    def parameters(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> FullParameters:
        """Parameters that start with independent coordinates of these standard deviations."""
        return FullParameters(sd.detach().clone(), torch.diag_embed(torch.ones_like(sd)))
