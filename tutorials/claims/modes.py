"""Two modes: how many optima reverse KL has, and what a mixture as the guide makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from claims.grid import GRID, kl, log_normal, log_two_modes, minimise, reverse_kl_normal


def optima(separation: float) -> list[tuple[float, float, float]]:
    """Different optima of a normal guide under reverse KL, from starts left, middle and right.

    Each is mean, standard deviation and KL(q‖p), from the best to the worst.
    """

    def log_p(z: Tensor) -> Tensor:
        return log_two_modes(z, separation)

    starts = ((-separation / 2, 1.0), (0.0, 2.0), (separation / 2, 1.0))
    found = sorted((reverse_kl_normal(log_p, *start) for start in starts), key=lambda o: o[2])
    different: list[tuple[float, float, float]] = []
    for optimum in found:
        if all(abs(optimum[0] - other[0]) > 1e-3 for other in different):
            different.append(optimum)
    return different


def mixture_guide(separation: float, starts: tuple[float, float]) -> tuple[float, float]:
    """Reverse KL of the best mixture of two normals from two starts, and its mass on the left."""
    z = GRID[::10]  # nothing here is narrower than 1
    log_p = log_two_modes(z, separation)

    def log_q(x: Tensor) -> Tensor:
        weights = torch.log_softmax(torch.stack([x[0], torch.zeros_like(x[0])]), 0)
        return torch.logaddexp(
            weights[0] + log_normal(z, x[1], x[3].exp()),
            weights[1] + log_normal(z, x[2], x[4].exp()),
        )

    x = minimise(lambda at: kl(log_q(at), log_p, z), [0.0, *starts, 0.0, math.log(1.2)])
    left = torch.trapezoid(log_q(x).exp() * (z < 0), z)
    return float(kl(log_q(x), log_p, z)), float(left)


def far_contamination(share: float = 0.05, distance: float = 20.0) -> dict[str, float]:
    """How little of the bound is lost, and how wrong the moments are, by a far small mode."""

    def log_p(z: Tensor) -> Tensor:  # the modes are at 0 and at the distance
        return log_two_modes(z - distance / 2, distance, left=1 - share)

    _, sd_q, lost = reverse_kl_normal(log_p, 0.0, 1.0)
    mean = share * distance
    sd = math.sqrt(1 + share * (1 - share) * distance**2)
    return {"nats lost": lost, "sd of the target": sd, "sd of the guide": sd_q, "mean": mean}
