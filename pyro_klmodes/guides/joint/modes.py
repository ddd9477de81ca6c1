"""Modes of a log-density by optimisation from many starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.spread import Sobol

__all__ = ["FromModes", "find_modes"]


def find_modes(
    log_density: Callable[[Tensor], Tensor],  # (n, D) -> (n,)
    starts: Tensor,  # (n, D)
    *,
    separation: float = 0.1,
) -> Tensor:  # (m, D), 0 <= m <= n
    """Local maxima of a log-density, the highest first.

    L-BFGS (SciPy's) runs from every start. A maximum closer than ``separation`` to a higher one is
    the same one. Runs that leave the finite numbers are dropped, as happens where the density has
    no maximum.

    Args:
        log_density: differentiable, called with one point at a time.
        starts: initial points, ``(n, D)``.
        separation: the least Euclidean distance between two modes.

    Returns:
        The modes, without gradients, in the type of ``starts``.

    Example:
        >>> bimodal = lambda u: torch.logaddexp(-8 * (u - 1) ** 2, -8 * (u + 1) ** 2).sum(-1)
        >>> find_modes(bimodal, torch.tensor([[-2.0], [0.5], [2.0]])).sort(0).values
        tensor([[-1.],
                [ 1.]])
    """
    ends = [_climb(log_density, start) for start in starts]
    found = [(value, point) for value, point in ends if np.isfinite(value)]
    modes: list[Tensor] = []
    for _, point in sorted(found, key=lambda end: -end[0]):
        if all(torch.linalg.vector_norm(point - mode) >= separation for mode in modes):
            modes.append(point)
    return torch.stack(modes) if modes else starts[:0]


@dataclass(frozen=True)
class FromModes:
    """The modes of the target: one component at each, as many as there are components.

    Modes are found by ``find_modes`` from stratified points around the initial location. If there
    are more modes than components, those of highest density are taken, which need not be those of
    largest mass. If there are fewer, the remaining components are copies, moved at random by the
    scale of the components.

    Args:
        log_density: the target's, in unconstrained coordinates up to a constant: ``(n, D)`` to
            ``(n,)``, differentiable. ``AutoMixture`` takes its model's where none is given.
        radius: standard deviation of the starts in every coordinate; should cover the modes.
        num_starts: how many starts; each costs an optimisation. Several per expected mode.
        separation: modes at a smaller Euclidean distance count as one.

    Raises:
        InvalidArgument: when called, if no start leads to a maximum.

    Example:
        >>> bimodal = lambda u: torch.logaddexp(-8 * (u - 1) ** 2, -8 * (u + 1) ** 2).sum(-1)
        >>> start = FromModes(bimodal, radius=2.0, num_starts=8)
        >>> start(torch.zeros(1), 2, 1.0).abs()
        tensor([[1.],
                [1.]])
    """

    log_density: Callable[[Tensor], Tensor] | None = None
    radius: float = 1.0
    num_starts: int = 50
    separation: float = 0.1

    def __post_init__(self) -> None:
        if self.num_starts < 1:
            raise InvalidArgument(f"num_starts is {self.num_starts}, but must be at least 1.")

    def __call__(
        self,
        loc: Tensor,  # (D,)
        num_components: int,
        scale: float,
    ) -> Tensor:  # (num_components, D)
        """The locations."""
        if self.log_density is None:
            raise InvalidArgument("FromModes has no log_density; pass one.")
        starts = Sobol(self.radius)(loc, self.num_starts, scale)
        modes = find_modes(self.log_density, starts, separation=self.separation)
        if len(modes) == 0:
            raise InvalidArgument(
                "log_density has no finite local maximum from any of the starts; use a smaller "
                "radius, or Spread instead of FromModes."
            )
        if len(modes) >= num_components:
            return modes[:num_components]
        copies = modes[torch.arange(num_components - len(modes)) % len(modes)]
        return torch.cat([modes, copies + scale * torch.randn_like(copies)])


def _climb(
    log_density: Callable[[Tensor], Tensor],
    start: Tensor,  # (D,)
) -> tuple[float, Tensor]:
    """The end of a run uphill: its log-density (not finite if the run has failed) and the point."""

    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.as_tensor(x).to(start).requires_grad_()
        with torch.enable_grad():
            value = -log_density(u.unsqueeze(0)).squeeze(0)
            (gradient,) = torch.autograd.grad(value, u)
        return float(value.detach()), gradient.cpu().double().numpy()

    first, _ = negative(start.detach().cpu().double().numpy())
    if not np.isfinite(first):
        return -np.inf, start
    end = optimize.minimize(
        negative, start.detach().cpu().double().numpy(), jac=True, method="L-BFGS-B"
    )
    finite = bool(np.isfinite(end.x).all() and np.isfinite(end.fun))
    return (-float(end.fun) if finite else -np.inf), torch.as_tensor(end.x).to(start)
