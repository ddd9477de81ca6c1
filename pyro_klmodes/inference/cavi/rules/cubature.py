"""Points and weights of the standard normal in D dimensions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["gauss_hermite", "quasi_random", "simplex"]


def simplex(
    dim: int,
) -> Tensor:  # (dim + 1, dim), in double precision
    """Corners of a regular simplex: with equal weights exact for quadratic functions.

    They have mean zero and covariance one. For dim = 1 they are -1 and 1.

    Source: Stroud (1957), "Remarks on the disposition of points in numerical integration formulas".

    Example:
        >>> x = simplex(3)
        >>> bool(torch.allclose(x.T @ x / 4, torch.eye(3, dtype=x.dtype)))
        True
    """
    corners = torch.zeros(dim + 1, dim, dtype=torch.float64)
    for k in range(dim):  # orthonormal contrasts, one column each
        corners[: k + 1, k] = -1 / math.sqrt((k + 1) * (k + 2))
        corners[k + 1, k] = (k + 1) / math.sqrt((k + 1) * (k + 2))
    return corners * math.sqrt(dim + 1)


def gauss_hermite(
    dim: int,
    order: int,
) -> tuple[Tensor, Tensor]:  # (order**dim, dim), (order**dim,)
    """Gauss-Hermite points and weights, all combinations of ``order`` points in every dimension.

    Example:
        >>> x, w = gauss_hermite(1, 5)
        >>> round(float((w * x[:, 0]**4).sum()), 6)
        3.0
    """
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    x = torch.as_tensor(points)
    w = torch.as_tensor(weights / weights.sum())
    grid = torch.cartesian_prod(*[x] * dim).reshape(-1, dim)
    return grid, torch.cartesian_prod(*[w] * dim).reshape(-1, dim).prod(-1)


def quasi_random(
    dim: int,
    number: int,
) -> Tensor:  # (number, dim), number is even
    """Sobol points as normal scores with their mirror images, mean zero and covariance one exactly.

    Always the same ones. Quadratic functions are integrated exactly, other ones with an error that
    falls with the number of points nearly as 1/number.

    Raises:
        ValueError: if there are not twice as many points as dimensions.

    Example:
        >>> x = quasi_random(4, 64)
        >>> bool(torch.allclose(x.T @ x / 64, torch.eye(4, dtype=x.dtype)))
        True
    """
    if number < 2 * dim:
        raise ValueError(f"{number} points cannot have covariance one in {dim} dimensions.")
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0)
    half = torch.special.ndtri(
        engine.draw(number // 2, dtype=torch.float64).clamp(1e-10, 1 - 1e-10)
    )
    x = torch.cat([half, -half])
    factor = torch.linalg.cholesky(x.T @ x / len(x))
    return torch.linalg.solve_triangular(factor, x.T, upper=False).T
