"""Where the components of a mixture start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument

__all__ = ["At", "Sobol", "Spread", "Start"]

#: (loc (D,), num_components, scale of the components) -> locations (num_components, D)
Start = Callable[[Tensor, int, float], Tensor]


@dataclass(frozen=True)
class Spread:
    """Normal random points around the initial location.

    Drawn by PyTorch's global generator. A radius of the order of the distance between the modes,
    in unconstrained coordinates, lets components find different ones; too large a radius loses
    those that start where the target is negligible.

    Args:
        radius: standard deviation of the points in every coordinate.

    Example:
        >>> Spread(radius=3.0)(torch.zeros(2), 5, 1.0).shape
        torch.Size([5, 2])
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def __call__(
        self,
        loc: Tensor,  # (D,)
        num_components: int,
        scale: float,
    ) -> Tensor:  # (num_components, D)
        """The locations."""
        return loc + self.radius * torch.randn(
            num_components, loc.shape[-1], dtype=loc.dtype, device=loc.device
        )


@dataclass(frozen=True)
class Sobol:
    """Normal points around the initial location that keep away from each other.

    Scrambled Sobol points (Sobol, 1967; Owen, 1998), through the normal quantile function. In one
    to ten dimensions they leave fewer gaps than random points; the scrambling is seeded by
    PyTorch's global generator. Sobol points exist up to 21,201 dimensions.

    Args:
        radius: standard deviation of the points in every coordinate.

    Example:
        >>> points = Sobol(radius=3.0)(torch.zeros(1), 4, 1.0)
        >>> (points < 0).sum()
        tensor(2)
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        _check_radius(self.radius)

    def __call__(
        self,
        loc: Tensor,  # (D,)
        num_components: int,
        scale: float,
    ) -> Tensor:  # (num_components, D)
        """The locations."""
        size = loc.shape[-1]
        if size > torch.quasirandom.SobolEngine.MAXDIM:
            raise InvalidArgument(f"Sobol has no points in {size} dimensions; use Spread.")
        seed = int(torch.randint(2**31 - 1, ()))
        sobol = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
        uniform = sobol.draw(num_components, dtype=torch.float64)
        # A point can fall on 0, where the normal quantile is not finite.
        inside = uniform.clamp(2.0**-31, 1 - 2.0**-31)
        return loc + self.radius * torch.special.ndtri(inside).to(loc)


@dataclass(frozen=True)
class At:
    """Given points.

    Args:
        points: locations in unconstrained coordinates, ``(num_components, D)``.

    Raises:
        InvalidArgument: when called, if the points are not ``(num_components, D)``.

    Example:
        >>> At(torch.tensor([[-1.0], [1.0]]))(torch.zeros(1), 2, 1.0)
        tensor([[-1.],
                [ 1.]])
    """

    points: Tensor

    def __call__(
        self,
        loc: Tensor,  # (D,)
        num_components: int,
        scale: float,
    ) -> Tensor:  # (num_components, D)
        """The locations."""
        expected = (num_components, loc.shape[-1])
        if tuple(self.points.shape) != expected:
            raise InvalidArgument(
                f"points have shape {tuple(self.points.shape)}, but {expected} is needed: "
                "components by unconstrained coordinates."
            )
        return self.points.to(loc)


def _check_radius(radius: float) -> None:
    if not radius > 0:
        raise InvalidArgument(
            f"radius is {radius}, but must be positive: components that start at one point stay "
            "together."
        )
