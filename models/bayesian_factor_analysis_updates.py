"""Coordinate ascent for Bayesian factor analysis by hand: updates and bound.

The approximation is ``prod_i q(z_i) prod_d q(w_d) q(m_d) q(tau_d)`` with normals and a Gamma. With
``t_d = E[tau_d]`` the factors that maximise the bound with the others held are

    z_i:    precision I + sum_d t_d E[w_d w_d^T],    linear part sum_d t_d E[w_d] (x_id - E m_d),
    w_d:    precision A I + t_d sum_i E[z_i z_i^T],  linear part t_d sum_i E[z_i] (x_id - E m_d),
    m_d:    precision B + N t_d,                     linear part t_d sum_i (x_id - E[w_d].E[z_i]),
    tau_d:  Gamma(2 + N/2, 1 + sum_i E(x_id - w_d.z_i - m_d)^2 / 2);

a normal with precision L and linear part h has the mean ``L^-1 h``. Its covariance is ``L^-1``, or,
if the entries of z_i and w_d are to be independent too, ``diag(1 / L_kk)`` with the same mean: what
entry after entry converges to while the other factors are held.

Source: Bishop (1999), "Variational principal components"; Ghahramani and Beal (2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.bayesian_factor_analysis import (
    CONCENTRATION,
    LOADING_PRECISION,
    MEAN_PRECISION,
    RATE,
)

__all__ = [
    "SITES",
    "Factors",
    "coordinate_updates",
    "elbo",
    "random_start",
    "update_loadings",
    "update_mean",
    "update_tau",
    "update_z",
]

SITES = ("z", "loadings", "mean", "tau")  # the order of a sweep


@dataclass(frozen=True)
class Factors:
    """The parameters of q.

    Attributes:
        z: Means of the factors, shape (N, K).
        z_covariance: Shape (K, K), the same for all data.
        loadings: Means of the loadings, shape (D, K).
        loadings_covariance: Shape (D, K, K).
        mean: Means of the means, shape (D,).
        mean_variance: Shape (D,).
        concentration: Of the precisions, shape (D,).
        rate: Of the precisions, shape (D,).
    """

    z: Tensor
    z_covariance: Tensor
    loadings: Tensor
    loadings_covariance: Tensor
    mean: Tensor
    mean_variance: Tensor
    concentration: Tensor
    rate: Tensor


def random_start(
    x: Tensor,  # (N, D)
    latents: int = 2,
) -> Factors:
    """Random loadings, so that the factors are not all alike; everything else at its prior.

    Example:
        >>> random_start(torch.zeros(5, 3)).loadings_covariance.shape
        torch.Size([3, 2, 2])
    """
    number, size = x.shape
    eye = torch.eye(latents).to(x)
    return Factors(
        z=x.new_zeros(number, latents),
        z_covariance=eye,
        loadings=torch.randn(size, latents).to(x),
        loadings_covariance=eye.expand(size, latents, latents) / LOADING_PRECISION,
        mean=x.new_zeros(size),
        mean_variance=x.new_full((size,), 1 / MEAN_PRECISION),
        concentration=x.new_full((size,), CONCENTRATION),
        rate=x.new_full((size,), RATE),
    )


def _spread(precision: Tensor, *, independent: bool) -> Tensor:
    """The covariance of the best normal, with or without independent entries."""
    if independent:
        return torch.diag_embed(1 / precision.diagonal(dim1=-2, dim2=-1))
    return torch.linalg.inv(precision)


def _squares(mean: Tensor, covariance: Tensor) -> Tensor:
    """``E[v v^T]`` for every row, (..., K, K)."""
    return mean[..., :, None] * mean[..., None, :] + covariance


def update_z(
    q: Factors,
    x: Tensor,  # (N, D)
    *,
    independent: bool = False,
) -> Factors:
    """The best factors given all else."""
    t = q.concentration / q.rate
    weighted = t[:, None, None] * _squares(q.loadings, q.loadings_covariance)
    precision = torch.eye(q.z.shape[1]).to(x) + weighted.sum(0)
    linear = ((x - q.mean) * t) @ q.loadings  # (N, K)
    z = torch.linalg.solve(precision, linear.T).T
    return replace(q, z=z, z_covariance=_spread(precision, independent=independent))


def update_loadings(
    q: Factors,
    x: Tensor,  # (N, D)
    *,
    independent: bool = False,
) -> Factors:
    """The best loadings given all else."""
    t = q.concentration / q.rate
    squares = q.z.T @ q.z + x.shape[0] * q.z_covariance
    precision = LOADING_PRECISION * torch.eye(q.z.shape[1]).to(x) + t[:, None, None] * squares
    linear = t[:, None] * ((x - q.mean).T @ q.z)  # (D, K)
    loadings = torch.linalg.solve(precision, linear)
    spread = _spread(precision, independent=independent)
    return replace(q, loadings=loadings, loadings_covariance=spread)


def update_mean(
    q: Factors,
    x: Tensor,  # (N, D)
) -> Factors:
    """The best means given all else."""
    t = q.concentration / q.rate
    precision = MEAN_PRECISION + x.shape[0] * t
    linear = t * (x - q.z @ q.loadings.T).sum(0)
    return replace(q, mean=linear / precision, mean_variance=1 / precision)


def update_tau(
    q: Factors,
    x: Tensor,  # (N, D)
) -> Factors:
    """The best precisions given all else."""
    concentration = torch.full_like(q.concentration, CONCENTRATION + 0.5 * x.shape[0])
    return replace(q, concentration=concentration, rate=RATE + 0.5 * _squared_errors(q, x))


def _squared_errors(q: Factors, x: Tensor) -> Tensor:  # (D,)
    """``sum_i E(x_id - w_d . z_i - m_d)^2``."""
    number = x.shape[0]
    at_means = (x - q.z @ q.loadings.T - q.mean) ** 2
    z_squares = q.z.T @ q.z + number * q.z_covariance  # sum_i E[z_i z_i^T]
    spread = (q.loadings_covariance * z_squares).sum((-2, -1))
    spread = spread + number * ((q.loadings @ q.z_covariance) * q.loadings).sum(-1)
    return at_means.sum(0) + spread + number * q.mean_variance


def coordinate_updates(
    q: Factors,
    x: Tensor,  # (N, D)
    *,
    independent: bool = False,
) -> Factors:
    """One sweep, in the order of ``SITES``.

    Args:
        q: The factors before.
        x: The data.
        independent: Whether the entries of ``z_i`` and of ``w_d`` are independent under q.

    Example:
        >>> from models.bayesian_factor_analysis import simulate
        >>> x, _ = simulate(20)
        >>> before = random_start(x)
        >>> after = coordinate_updates(before, x)
        >>> bool(elbo(after, x) > elbo(before, x)), after.concentration[0]
        (True, tensor(12.))
    """
    q = update_z(q, x, independent=independent)
    q = update_loadings(q, x, independent=independent)
    return update_tau(update_mean(q, x), x)


def elbo(
    q: Factors,
    x: Tensor,  # (N, D)
) -> Tensor:
    """The evidence lower bound of any factors, exactly.

    Example:
        >>> x = torch.zeros(5, 3)
        >>> elbo(random_start(x), x).shape
        torch.Size([])
    """
    number = x.shape[0]
    t = q.concentration / q.rate
    log_tau = q.concentration.digamma() - q.rate.log()
    log_two_pi = math.log(2 * math.pi)
    likelihood = 0.5 * (number * (log_tau - log_two_pi) - t * _squared_errors(q, x)).sum()

    kl_tau = (
        (q.concentration - CONCENTRATION) * q.concentration.digamma()
        - q.concentration.lgamma()
        + math.lgamma(CONCENTRATION)
        + CONCENTRATION * (q.rate.log() - math.log(RATE))
        + q.concentration * (RATE - q.rate) / q.rate
    )
    kl_mean = 0.5 * (
        MEAN_PRECISION * (q.mean**2 + q.mean_variance)
        - 1
        - (MEAN_PRECISION * q.mean_variance).log()
    )
    kl_z = _kl(q.z, q.z_covariance, 1.0)
    kl_loadings = _kl(q.loadings, q.loadings_covariance, LOADING_PRECISION)
    return likelihood - kl_tau.sum() - kl_mean.sum() - kl_z.sum() - kl_loadings.sum()


def _kl(
    mean: Tensor,  # (rows, K)
    covariance: Tensor,  # (K, K) or (rows, K, K)
    precision: float,
) -> Tensor:  # (rows,)
    """From normals to the prior ``Normal(0, I / precision)``."""
    size = mean.shape[-1]
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    log_det = torch.logdet(covariance) + size * math.log(precision)
    return 0.5 * (precision * ((mean**2).sum(-1) + trace) - size - log_det)
