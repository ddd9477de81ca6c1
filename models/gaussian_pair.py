"""Two correlated standard normals, and what a mean-field normal makes of them at every alpha.

    z ~ MultivariateNormal(0, [[1, r], [r, 1]]),   no data, log evidence 0

Alpha is that of Li and Turner (2016): 1 is reverse KL, 0 (in the limit) forward KL, negative
values are on the chi-square side. The divergence minimised is the Renyi divergence
``D_alpha(q || p) = log E_q[(p/q)^(1 - alpha)] / (alpha - 1)``, divided by alpha so that it stays
non-negative for negative alpha and becomes KL(p || q) in the limit of 0.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "exact_guide",
    "mean_field_khat",
    "mean_field_precision_factor",
    "mean_field_sd_ratio",
    "model",
    "problem",
]


def covariance(correlation: float) -> Tensor:
    """The covariance matrix ``[[1, r], [r, 1]]``, shape (2, 2).

    Raises:
        ValueError: If the correlation is not strictly between -1 and 1.
    """
    if not -1 < correlation < 1:
        raise ValueError(f"correlation must lie strictly between -1 and 1, got {correlation}")
    return torch.tensor([[1.0, correlation], [correlation, 1.0]])


def model(correlation: float = 0.9) -> None:
    """The pair as one site ``z`` of event shape (2,)."""
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), covariance(correlation)))


def exact_guide(correlation: float = 0.9) -> None:
    """The same distribution as a guide."""
    pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), covariance(correlation)))


def mean_field_precision_factor(alpha: float, correlation: float) -> float:
    """The factor ``rho`` by which the best mean-field normal multiplies the diagonal precisions.

    With the target's precision matrix ``L`` and ``r^2 = L12^2 / (L11 L22)``, the mean-field normal
    that minimises the Renyi divergence has precisions ``rho L11`` and ``rho L22`` with

        rho = [(2 alpha - 1) + sqrt(1 - 4 alpha (1 - alpha) r^2)] / (2 alpha)

    which is ``1 - r^2`` in the limit of 0 (exact marginals), 1 at alpha = 1, and ``1 + |r|`` and
    ``1 - |r|`` in the limits of plus and minus infinity.

    Args:
        alpha: Li and Turner's alpha, any real number or an infinity.
        correlation: Correlation of the target, strictly between -1 and 1.

    Source:
        Li and Turner (2016), "Renyi divergence variational inference", appendix B.

    Example:
        >>> [round(mean_field_precision_factor(a, 0.9), 4) for a in (-math.inf, 0, 1, math.inf)]
        [0.1, 0.19, 1.0, 1.9]
    """
    r = abs(correlation)
    if math.isinf(alpha):
        return 1 + math.copysign(r, alpha)
    root = math.sqrt(1 - 4 * alpha * (1 - alpha) * r**2)
    if alpha < 0.5:
        # The same number without the cancellation (0/0 at alpha = 0) of the form above.
        return 2 * (1 - alpha) * (1 - r**2) / (root + 1 - 2 * alpha)
    return (2 * alpha - 1 + root) / (2 * alpha)


def mean_field_sd_ratio(alpha: float, correlation: float) -> float:
    """Standard deviation of the best mean-field normal over the true marginal one.

    The precisions of the target are ``1 / (1 - r^2)``, so the ratio is ``sqrt((1 - r^2) / rho)``:
    1 for forward KL, ``sqrt(1 - r^2)`` for reverse KL.

    Args:
        alpha: Li and Turner's alpha, any real number or an infinity.
        correlation: Correlation of the target, strictly between -1 and 1.

    Example:
        >>> [round(mean_field_sd_ratio(alpha, 0.9), 4) for alpha in (-1, 0, 0.5, 1, 2)]
        [1.1974, 1.0, 0.6602, 0.4359, 0.364]
    """
    return math.sqrt((1 - correlation**2) / mean_field_precision_factor(alpha, correlation))


def mean_field_khat(alpha: float, correlation: float) -> float:
    """Tail index of the importance weights ``p/q`` under the best mean-field normal.

    For normals with equal means ``k = 1 - lambda_min(S_p^-1 S_q)``: along that eigenvector
    ``log w = k e^2 / 2 + const`` with e standard normal, so ``P(w > t)`` falls as ``t^(-1/k)``
    up to logarithms, and ``E_q[w^m]`` is finite exactly for ``m < 1/k``. Here the smallest
    eigenvalue is ``(1 - |r|) / rho``. Pareto k-hat estimates this number.

    Args:
        alpha: Li and Turner's alpha, any real number or an infinity.
        correlation: Correlation of the target, strictly between -1 and 1.

    Source:
        The meaning of k: Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed
        importance sampling". The formula follows from the lines above.

    Example:
        >>> [round(mean_field_khat(alpha, 0.9), 3) for alpha in (-1, 0, 0.5, 1, 2)]
        [0.245, 0.474, 0.771, 0.9, 0.93]
    """
    return 1 - (1 - abs(correlation)) / mean_field_precision_factor(alpha, correlation)


def problem(correlation: float = 0.9) -> Problem:
    """The pair with the given correlation.

    Args:
        correlation: Strictly between -1 and 1.

    Raises:
        ValueError: If the correlation is out of range.

    Example:
        >>> problem(0.5).reference["z"].sd
        tensor([1., 1.])
    """
    return Problem(
        name="gaussian pair",
        model=model,
        args=(correlation,),
        exact_guide=exact_guide,
        reference={"z": Moments(torch.zeros(2), covariance(correlation).diagonal().sqrt())},
        log_evidence=0.0,
        how="closed form",
        source="the example of Li and Turner (2016), appendix B",
    )
