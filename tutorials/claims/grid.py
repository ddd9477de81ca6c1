"""Integrals over one latent number as sums over a grid, and optima by L-BFGS, without draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: wide and fine enough for every target here but those with heavy tails
GRID = torch.linspace(-30, 30, 6001, dtype=torch.float64)


def log_normal(z: Tensor, mean: Tensor | float, sd: Tensor | float) -> Tensor:
    """Log-density of a normal."""
    sd = torch.as_tensor(sd, dtype=z.dtype)
    return -(((z - mean) / sd) ** 2) / 2 - sd.log() - math.log(2 * math.pi) / 2


def log_two_modes(z: Tensor, separation: float, left: float = 0.7) -> Tensor:
    """Log-density of unit normals ``separation`` apart around 0, the left one of mass ``left``."""
    return torch.logaddexp(
        math.log(left) + log_normal(z, -separation / 2, 1.0),
        math.log(1 - left) + log_normal(z, separation / 2, 1.0),
    )


def kl(log_a: Tensor, log_b: Tensor, z: Tensor = GRID) -> Tensor:
    """KL(a‖b) from log-densities on the grid."""
    return torch.trapezoid(log_a.exp() * (log_a - log_b), z)


def mean_and_sd(log_p: Tensor, z: Tensor = GRID) -> tuple[float, float]:
    """Moments of a density on the grid."""
    mean = torch.trapezoid(log_p.exp() * z, z)
    variance = torch.trapezoid(log_p.exp() * (z - mean) ** 2, z)
    return float(mean), math.sqrt(variance)


def minimise(objective: Callable[[Tensor], Tensor], start: list[float]) -> Tensor:
    """The local optimum that L-BFGS finds from a start, in double precision."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [x],
        max_iter=300,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective(x)
        value.backward()
        return value

    optimiser.step(closure)
    return x.detach()


def reverse_kl_normal(
    log_p: Callable[[Tensor], Tensor], mean: float, sd: float
) -> tuple[float, float, float]:
    """Mean, standard deviation and KL(q‖p) of the normal that reverse KL finds from a start.

    The sum is over the guide's own noise, so that no guide can leave the grid.
    """
    noise = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    log_noise = log_normal(noise, 0.0, 1.0)

    def objective(x: Tensor) -> Tensor:
        log_q = log_noise - x[1]
        log_ratio = log_q - log_p(x[0] + x[1].exp() * noise)
        return torch.trapezoid(log_noise.exp() * log_ratio, noise)

    found = minimise(objective, [mean, math.log(sd)])
    return float(found[0]), math.exp(found[1]), float(objective(found))
