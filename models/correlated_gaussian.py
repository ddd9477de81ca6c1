"""Equally correlated standard normals in any dimension, and their best mean-field normal.

    z ~ MultivariateNormal(0, (1 - r) I + r 1 1^T),   no data, log evidence 0

In many dimensions a moderate correlation is enough to make a mean-field guide useless for
importance sampling: at r = 0.5 the tail index of the weights is ``1 - 1/d``.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = ["covariance", "exact_guide", "mean_field_khat", "mean_field_sd", "model", "problem"]

DIMENSION = 10
CORRELATION = 0.5


def covariance(dimension: int, correlation: float) -> Tensor:
    """The covariance matrix, 1 on the diagonal and ``correlation`` elsewhere, shape (d, d).

    Raises:
        ValueError: If the dimension is below 2, or the matrix would not be positive definite.

    Example:
        >>> covariance(2, 0.5)
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2, got {dimension}")
    if not -1 / (dimension - 1) < correlation < 1:
        raise ValueError(
            f"correlation must lie strictly between -1/(dimension - 1) = "
            f"{-1 / (dimension - 1):.4g} and 1, got {correlation}"
        )
    return (1 - correlation) * torch.eye(dimension) + correlation


def model(dimension: int = DIMENSION, correlation: float = CORRELATION) -> None:
    """The normals as one site ``z`` of event shape (dimension,)."""
    covariance_matrix = covariance(dimension, correlation)
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(dimension), covariance_matrix))


def exact_guide(dimension: int = DIMENSION, correlation: float = CORRELATION) -> None:
    """The same distribution as a guide: there are no data."""
    model(dimension, correlation)


def mean_field_sd(dimension: int, correlation: float) -> float:
    """Standard deviation of the mean-field normal that minimises reverse KL (the true one is 1).

    It is ``1 / sqrt(L)`` with the diagonal L of the precision matrix, by Sherman-Morrison
    ``L = (1 - r / (1 + (d - 1) r)) / (1 - r)``.

    Args:
        dimension: The number d of coordinates.
        correlation: The correlation r of any two of them.

    Source:
        Bishop (2006), "Pattern recognition and machine learning", section 10.1.2.

    Example:
        >>> [round(mean_field_sd(d, 0.5), 4) for d in (2, 5, 20, 100)]
        [0.866, 0.7746, 0.7246, 0.7106]
    """
    r = correlation
    return math.sqrt((1 - r) / (1 - r / (1 + (dimension - 1) * r)))


def mean_field_khat(dimension: int, correlation: float) -> float:
    """Tail index of the importance weights ``p/q`` under the reverse-KL mean-field normal.

    For normals with equal means it is ``1 - lambda_min(S_p^-1 S_q)``. With ``S_q = v I`` and
    eigenvalues ``1 + (d - 1) r`` and ``1 - r`` of ``S_p``, it is one minus v over the larger one.

    Args:
        dimension: The number d of coordinates.
        correlation: The correlation r of any two of them.

    Source:
        The meaning of k: Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed
        importance sampling". The formula follows from the lines above.

    Example:
        >>> [round(mean_field_khat(d, 0.5), 4) for d in (2, 5, 20, 100)]
        [0.5, 0.8, 0.95, 0.99]
    """
    widest = max(1 + (dimension - 1) * correlation, 1 - correlation)
    return 1 - mean_field_sd(dimension, correlation) ** 2 / widest


def problem(dimension: int = DIMENSION, correlation: float = CORRELATION) -> Problem:
    """The normals in the given dimension.

    Args:
        dimension: How many, at least 2.
        correlation: Strictly between ``-1 / (dimension - 1)`` and 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> problem(3, 0.9).reference["z"].sd
        tensor([1., 1., 1.])
    """
    sd = covariance(dimension, correlation).diagonal().sqrt()
    return Problem(
        name="correlated gaussian",
        model=model,
        args=(dimension, correlation),
        exact_guide=exact_guide,
        reference={"z": Moments(torch.zeros(dimension), sd)},
        log_evidence=0.0,
        how="closed form",
        source="a textbook example: Bishop (2006), section 10.1.2",
    )
