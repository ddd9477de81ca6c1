"""The exact posterior of the radon model: a sum over the two scales of normal posteriors.

Given ``sigma_a = s`` and ``sigma_y = t`` the model is linear and normal in ``b = (mu_a, beta,
gamma)`` and the intercepts. With the rows ``(1, floor_i, u_county(i))`` of X, a county with n
houses has ``y_j ~ N(X_j b, V_j)``, where ``V_j = t^2 I + s^2 1 1^T`` and by Sherman-Morrison

    V_j^-1 = (I - k_j 1 1^T) / t^2,   k_j = s^2 / (t^2 + n s^2),   |V_j| = t^(2n-2) (t^2 + n s^2)

so sums over each county are all that is needed of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from models.problem import Moments

__all__ = ["posterior_by_quadrature"]

PRIOR_VARIANCE = 4.0  # of mu_a, beta and gamma

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Sums over the houses of each county; C counties, three columns of X."""

    size: Array  # (C,)
    x: Array  # (C, 3): sums of the rows of X
    y: Array  # (C,)
    xx: Array  # (3, 3): X^T X of all houses
    xy: Array  # (3,)
    yy: float
    uranium: Array  # (C,)


def sums_by_county(y: Array, county: NDArray[np.int64], floor: Array, uranium: Array) -> Sums:
    """What the posterior needs of the data; the arguments are those of the model."""
    x = np.stack([np.ones_like(y), floor, uranium[county]], -1)
    member = (county == np.arange(len(uranium))[:, None]).astype(float)  # (C, houses)
    return Sums(
        size=member.sum(1),
        x=member @ x,
        y=member @ y,
        xx=x.T @ x,
        xy=x.T @ y,
        yy=float(y @ y),
        uranium=uranium,
    )


def coefficients_given_scales(
    sums: Sums,
    var_a: Array,  # (nodes,)
    var_y: Array,  # (nodes,)
) -> tuple[Array, Array, Array]:
    """The posterior of ``b`` and ``log p(y)`` given the scales at each node.

    Returns:
        Means (nodes, 3), covariances (nodes, 3, 3) and log densities (nodes,).
    """
    total = var_y[:, None] + sums.size * var_a[:, None]  # (nodes, C)
    k = var_a[:, None] / total
    xx = sums.xx - np.einsum("nc,ci,cj->nij", k, sums.x, sums.x)
    xy = sums.xy - np.einsum("nc,ci,c->ni", k, sums.x, sums.y)
    yy = sums.yy - k @ sums.y**2

    precision = np.eye(3) / PRIOR_VARIANCE + xx / var_y[:, None, None]
    covariance = np.linalg.inv(precision)
    shift = xy / var_y[:, None]
    mean = np.einsum("nij,nj->ni", covariance, shift)

    houses = sums.size.sum()
    log_det = (sums.size - 1).sum() * np.log(var_y) + np.log(total).sum(1)
    log_det += np.linalg.slogdet(PRIOR_VARIANCE * precision)[1]
    quadratic = yy / var_y - (mean * shift).sum(1)
    return mean, covariance, -0.5 * (houses * np.log(2 * np.pi) + log_det + quadratic)


def intercepts_given_scales(
    sums: Sums, var_a: Array, var_y: Array, mean: Array, covariance: Array
) -> tuple[Array, Array]:
    """Mean and variance of each ``alpha_j`` at each node, with ``b`` integrated out.

    ``alpha_j`` given ``b`` is pulled by ``w = n s^2 / (t^2 + n s^2)`` from its regression to its
    houses. Its mean is ``w ybar_j + a^T b`` with ``a = (1 - w, -w floorbar_j, (1 - w) u_j)``, its
    variance ``(1 - w) s^2``.

    Returns:
        Two arrays of shape (nodes, C).
    """
    pull = sums.size * var_a[:, None] / (var_y[:, None] + sums.size * var_a[:, None])
    slope = np.stack(
        [1 - pull, -pull * sums.x[:, 1] / sums.size, (1 - pull) * sums.uranium], -1
    )  # (nodes, C, 3)
    centre = pull * sums.y / sums.size + np.einsum("nci,ni->nc", slope, mean)
    spread = np.einsum("nci,nij,ncj->nc", slope, covariance, slope, optimize=True)
    return centre, (1 - pull) * var_a[:, None] + spread


def posterior_by_quadrature(
    y: Array,  # (houses,)
    county: NDArray[np.int64],  # (houses,)
    floor: Array,  # (houses,)
    uranium: Array,  # (counties,)
    step: float = 0.05,
) -> tuple[dict[str, Moments], float]:
    """Posterior moments of all sites, and the log evidence.

    The trapezoid rule in ``log sigma_a`` and ``log sigma_y``. The grid is wide enough for the data
    of ``hierarchical_radon.data``: ``sigma_y`` has to lie between 0.6 and 0.95.

    Args:
        y: Log radon of the houses.
        county: The index of each house's county.
        floor: The predictor of the house.
        uranium: The predictor of the county; every county has a house.
        step: Distance of the nodes in ``log sigma_a``; a fifth of it is that in ``log sigma_y``.

    Returns:
        Moments of ``mu_a``, ``beta``, ``gamma``, ``sigma_a``, ``sigma_y`` and ``alpha``, and
        ``log p(y)``.

    Example:
        >>> from models.hierarchical_radon import data
        >>> moments, _ = posterior_by_quadrature(*(part.numpy() for part in data()))
        >>> sorted(moments)
        ['alpha', 'beta', 'gamma', 'mu_a', 'sigma_a', 'sigma_y']
    """
    sums = sums_by_county(y, county, floor, uranium)
    log_scales = np.meshgrid(
        np.arange(-12.0, 1.5, step), np.arange(np.log(0.6), np.log(0.95), step / 5), indexing="ij"
    )
    sigma_a, sigma_y = (np.exp(axis).ravel() for axis in log_scales)

    mean, covariance, log_likelihood = coefficients_given_scales(sums, sigma_a**2, sigma_y**2)
    log_mass = (
        log_likelihood
        + stats.halfnorm.logpdf(sigma_a)
        + stats.halfnorm.logpdf(sigma_y)
        + np.log(sigma_a * sigma_y)  # the Jacobian
        + np.log(step * step / 5)
    )
    log_evidence = float(logsumexp(log_mass))
    weight = np.exp(log_mass - log_evidence)[:, None]

    def moments(centre: Array, variance: Array) -> Moments:
        # Mean and variance at the nodes, averaged by the law of total variance.
        total = (weight * centre).sum(0)
        return Moments.of(total, np.sqrt((weight * (variance + (centre - total) ** 2)).sum(0)))

    def scalar(vector: Moments, place: int) -> Moments:
        return Moments(vector.mean[place], vector.sd[place])

    coefficients = moments(mean, covariance.diagonal(axis1=1, axis2=2))
    scales = np.stack([sigma_a, sigma_y], -1)
    scale_moments = moments(scales, np.zeros_like(scales))
    sites = {
        "mu_a": scalar(coefficients, 0),
        "beta": scalar(coefficients, 1),
        "gamma": scalar(coefficients, 2),
        "sigma_a": scalar(scale_moments, 0),
        "sigma_y": scalar(scale_moments, 1),
        "alpha": moments(*intercepts_given_scales(sums, sigma_a**2, sigma_y**2, mean, covariance)),
    }
    return sites, log_evidence
