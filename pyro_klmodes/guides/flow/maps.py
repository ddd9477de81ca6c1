"""The monotone map of a line that the layers of a flow apply to each coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow.zuko_modules import MonotonicAffineTransform, MonotonicRQSTransform

__all__ = ["Affine", "Map", "Spline"]


class Map(Protocol):
    """A monotone map whose unconstrained parameters a network puts out; all zero: the identity."""

    @property
    def univariate(self) -> dict[str, Any]:
        """The map and the shapes of its parameters, as zuko's layers take them."""


@dataclass(frozen=True)
class Affine:
    """``x -> exp(a) x + b``, with ``exp(a)`` between 1/1000 and 1000.

    Quick, and with a Gaussian base Gaussian in each coordinate given those before it.

    Example:
        >>> Affine()
        Affine()
    """

    @property
    def univariate(self) -> dict[str, Any]:
        """The map and the shapes of its parameters."""
        return {"univariate": MonotonicAffineTransform, "shapes": ((), ())}


@dataclass(frozen=True)
class Spline:
    """A monotone rational-quadratic spline on ``[-bound, bound]``, the identity outside.

    The box is no limit to where the density lives: outside of it the flow is its base, moved and
    scaled by the learned location and scale of the whole family.

    Args:
        bins: the number of pieces.
        bound: the half-width of the interval, in units of the base. Pieces far out see few draws
            and learn noise; the tails are better left to the base or to a tail layer.

    Raises:
        InvalidArgument: for fewer than two bins or a bound that is not positive.

    References:
        Durkan, Bekasov, Murray and Papamakarios (2019), Neural Spline Flows.

    Example:
        >>> Spline(bins=16)
        Spline(bins=16, bound=3.0)
    """

    bins: int = 8
    bound: float = 3.0

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise InvalidArgument(f"bins is {self.bins}; a spline needs at least two.")
        if not self.bound > 0:
            raise InvalidArgument(f"bound is {self.bound}; it must be positive.")

    @property
    def univariate(self) -> dict[str, Any]:
        """The map and the shapes of its parameters: widths, heights and inner derivatives."""
        return {
            "univariate": partial(MonotonicRQSTransform, bound=self.bound),
            "shapes": ((self.bins,), (self.bins,), (self.bins - 1,)),
        }
