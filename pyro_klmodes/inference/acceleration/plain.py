"""No acceleration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.inference.acceleration.base import Accelerator, Point

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(Accelerator):
    """``theta <- F(theta)``: the map itself, which converges at the rate of its spectral radius.

    Example:
        >>> Plain()
        Plain()
    """

    def start(
        self,
        state: Tensor,  # (R, P)
    ) -> None:
        """Nothing to remember."""

    def propose(
        self,
        memory: None,
        point: Point,
    ) -> Tensor:  # (R, P)
        """The map."""
        return point.mapped
