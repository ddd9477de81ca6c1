"""Coordinate ascent for Bayesian linear regression by hand: updates, bound and fixed point.

The approximation is ``q(w) q(tau) = Normal(w; m, S) Gamma(tau; a', b')``. With ``t = E[tau]``, and
``g = k t`` for ``model`` (the prior of w scales with tau) or ``g = k`` for ``semi_conjugate_model``

    L = t X^T X + g I,   m = L^-1 t X^T y,   S = L^-1, or diag(1 / L_jj) for independent entries,
    a' = a + N/2,        b' = b + E|y - X w|^2 / 2,

and with the conjugate prior D/2 and ``k E|w|^2 / 2`` more. These are the exact maxima of the bound
over one factor with the other held. The mean is the same with independent entries: the best normal
with a diagonal covariance has the right mean, and the inverse of the precision's diagonal.

With the conjugate prior the fixed point has a closed form, the same for both kinds of S but for S:
``E[tau] = (a + N/2) / B`` and m are those of the posterior, where ``B`` is the rate of tau's
posterior; the concentration is ``a + (N + D)/2``.

Sources: Bishop (2006), "Pattern recognition and machine learning", section 10.3; Blei, Kucukelbir
and McAuliffe (2017), "Variational inference: a review for statisticians".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.bayesian_linear_regression import CONCENTRATION, RATE, SHRINKAGE, posterior

__all__ = [
    "Factors",
    "conjugate_fixed_point",
    "coordinate_updates",
    "elbo",
    "fixed_point",
    "start",
    "update_tau",
    "update_w",
]


@dataclass(frozen=True)
class Factors:
    """``q(w) = Normal(mean, covariance)`` and ``q(tau) = Gamma(concentration, rate)``.

    Attributes:
        mean: Shape (D,).
        covariance: Shape (D, D).
        concentration: Shape ().
        rate: Shape ().
    """

    mean: Tensor
    covariance: Tensor
    concentration: Tensor
    rate: Tensor


def start(
    x: Tensor,  # (N, D)
) -> Factors:
    """``w ~ Normal(0, I)`` and ``tau ~ Gamma(1, 1)``.

    Example:
        >>> start(torch.zeros(5, 2)).covariance
        tensor([[1., 0.],
                [0., 1.]])
    """
    size = x.shape[-1]
    return Factors(x.new_zeros(size), torch.eye(size).to(x), x.new_ones(()), x.new_ones(()))


def update_w(
    q: Factors,
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    conjugate: bool,
    independent: bool = False,
) -> Factors:
    """The best ``q(w)`` given ``q(tau)``; with ``independent`` the best with a diagonal S."""
    t = q.concentration / q.rate
    prior = SHRINKAGE * (t if conjugate else torch.ones_like(t))
    precision = t * x.T @ x + prior * torch.eye(x.shape[-1]).to(x)
    covariance = torch.diag(1 / precision.diagonal()) if independent else precision.inverse()
    mean = torch.linalg.solve(precision, t * x.T @ y)
    return Factors(mean, covariance, q.concentration, q.rate)


def update_tau(
    q: Factors,
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    conjugate: bool,
) -> Factors:
    """The best ``q(tau)`` given ``q(w)``."""
    number, size = x.shape
    concentration = CONCENTRATION + 0.5 * number
    rate = RATE + 0.5 * _squared_error(q, x, y)
    if conjugate:
        concentration = concentration + 0.5 * size
        rate = rate + 0.5 * SHRINKAGE * _squared_norm(q)
    return Factors(q.mean, q.covariance, torch.full_like(q.concentration, concentration), rate)


def _squared_error(q: Factors, x: Tensor, y: Tensor) -> Tensor:
    """``E|y - X w|^2``."""
    return ((y - x @ q.mean) ** 2).sum() + ((x @ q.covariance) * x).sum()


def _squared_norm(q: Factors) -> Tensor:
    """``E|w|^2``."""
    return (q.mean**2).sum() + q.covariance.trace()


def coordinate_updates(
    q: Factors,
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    conjugate: bool,
    independent: bool = False,
) -> Factors:
    """One sweep: first ``w``, then ``tau``.

    Args:
        q: The factors before.
        x: The regressors.
        y: The response.
        conjugate: Whether the model is ``model``; otherwise it is ``semi_conjugate_model``.
        independent: Whether the entries of w are independent under q.

    Example:
        >>> x, y = torch.ones(4, 1), torch.ones(4)
        >>> coordinate_updates(start(x), x, y, conjugate=False).mean  # 4 / (4 + k)
        tensor([0.8889])
    """
    q = update_w(q, x, y, conjugate=conjugate, independent=independent)
    return update_tau(q, x, y, conjugate=conjugate)


def elbo(
    q: Factors,
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    conjugate: bool,
) -> Tensor:
    """The evidence lower bound of any factors, exactly.

    Example:
        >>> x, y = torch.ones(4, 1), torch.ones(4)
        >>> before, after = start(x), coordinate_updates(start(x), x, y, conjugate=True)
        >>> bool(elbo(after, x, y, conjugate=True) > elbo(before, x, y, conjugate=True))
        True
    """
    number, size = x.shape
    t = q.concentration / q.rate
    log_tau = q.concentration.digamma() - q.rate.log()
    log_two_pi = math.log(2 * math.pi)

    likelihood = 0.5 * (number * (log_tau - log_two_pi) - t * _squared_error(q, x, y))
    scale, log_scale = (t, log_tau) if conjugate else (1.0, 0.0)
    prior_w = 0.5 * (
        size * (math.log(SHRINKAGE) + log_scale - log_two_pi) - SHRINKAGE * scale * _squared_norm(q)
    )
    prior_tau = (
        CONCENTRATION * math.log(RATE)
        - math.lgamma(CONCENTRATION)
        + (CONCENTRATION - 1) * log_tau
        - RATE * t
    )
    entropy_w = 0.5 * (size * (1 + log_two_pi) + torch.logdet(q.covariance))
    entropy_tau = (
        q.concentration
        - q.rate.log()
        + q.concentration.lgamma()
        + (1 - q.concentration) * q.concentration.digamma()
    )
    return likelihood + prior_w + prior_tau + entropy_w + entropy_tau


def fixed_point(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    conjugate: bool,
    independent: bool = False,
    tolerance: float = 1e-14,
    max_sweeps: int = 1000,
) -> Factors:
    """Sweeps in double precision until the rate changes by less than ``tolerance``, relatively.

    Raises:
        RuntimeError: If that takes more than ``max_sweeps`` sweeps.

    Example:
        >>> q = fixed_point(torch.ones(4, 1), torch.ones(4), conjugate=False)
        >>> q.rate < 2, q.rate.dtype
        (tensor(True), torch.float64)
    """
    x, y = x.double(), y.double()
    q = start(x)
    for _ in range(max_sweeps):
        before = q.rate
        q = coordinate_updates(q, x, y, conjugate=conjugate, independent=independent)
        if bool((q.rate - before).abs() <= tolerance * before):
            return q
    raise RuntimeError(f"no fixed point after {max_sweeps} sweeps; choose a larger tolerance")


def conjugate_fixed_point(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    *,
    independent: bool = False,
) -> Factors:
    """The fixed point for ``model`` in closed form.

    Example:
        >>> conjugate_fixed_point(torch.ones(4, 1), torch.ones(4)).concentration
        tensor(4.5000)
    """
    number, size = x.shape
    exact = posterior(x, y)
    t = exact.concentration / exact.rate
    precision = t * exact.precision
    covariance = torch.diag(1 / precision.diagonal()) if independent else precision.inverse()
    concentration = x.new_tensor(CONCENTRATION + 0.5 * (number + size))
    return Factors(exact.mean, covariance, concentration, concentration / t)
