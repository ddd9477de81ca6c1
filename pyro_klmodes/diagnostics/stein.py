"""Kernelised Stein discrepancy: how far draws are from a density known up to a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.matrices import (
    checked_count,
    checked_matrix,
    normalised_weights,
    own_generator,
)
from pyro_klmodes.errors import InvalidArgument

__all__ = ["SteinTest", "stein_discrepancy", "stein_test"]

Kernel = Literal["imq", "rbf"]


@dataclass(frozen=True)
class SteinTest:
    """What a test of q = p by the Stein discrepancy found.

    Attributes:
        statistic: the U-statistic of the squared discrepancy; may be negative.
        p_value: share of bootstrapped statistics that are at least as large.
        num_bootstrap: how many there were.
        kernel: "imq" or "rbf".
        lengthscale: of the kernel, in units of ``scale``.
        scale: ``(D,)`` what the coordinates were divided by.
    """

    statistic: float
    p_value: float
    num_bootstrap: int
    kernel: str
    lengthscale: float
    scale: Tensor


def stein_discrepancy(
    draws: Tensor,  # (S, D)
    scores: Tensor,  # (S, D)
    *,
    log_w: Tensor | None = None,  # (S,)
    kernel: Kernel = "imq",
    statistic: Literal["u", "v"] = "u",
    scale: Tensor | None = None,  # (D,)
    lengthscale: float | None = None,
) -> float:
    r"""Squared kernelised Stein discrepancy of draws from q against a density p.

    With scores :math:`s(x) = \nabla \log p(x)` and a kernel k, the expectation over two
    independent draws of

    .. math::
        k_p(x, y) = s(x)^T s(y) k + s(x)^T \nabla_y k + s(y)^T \nabla_x k
                    + \mathrm{tr} \nabla_x \nabla_y k

    is zero if q = p and positive otherwise. The normalising constant of p is not needed. Columns
    are divided by their standard deviation over the draws, so that units do not matter; then
    :math:`k = (1 + r^2/h^2)^{-1/2}` ("imq", inverse multiquadric, which also controls the tails)
    or :math:`k = \exp(-r^2 / 2h^2)` ("rbf"), with h the median distance of the draws.

    Limits. The discrepancy is local: with well separated modes it does not see their proportions,
    because scores do not (compare the masses by ``mode_coverage``). It has little power in many
    dimensions. Takes S times S numbers of memory: use at most a few thousand draws.

    Args:
        draws: unconstrained draws.
        scores: gradients of the log-density of p at the draws, Jacobian included.
        log_w: log-weights of the draws, self-normalised here; to judge Pareto-smoothed draws.
        kernel: "imq" or "rbf".
        statistic: "u" leaves out pairs of a draw with itself and is unbiased, "v" keeps them and
            is never negative.
        scale: what coordinates are divided by, instead of the standard deviations.
        lengthscale: h, instead of the median distance.

    Returns:
        The squared discrepancy, in double precision.

    Raises:
        InvalidArgument: for fewer than two draws, D = 0, shapes that do not match, numbers that
            are not finite, a coordinate in which the draws do not vary.

    Source: Liu, Lee and Jordan (2016); Chwialkowski, Strathmann and Gretton (2016); Gorham and
        Mackey (2017) for the inverse multiquadric.

    Example:
        >>> x = torch.special.ndtri((torch.arange(200.0) + 0.5) / 200)[:, None]  # N(0, 1)
        >>> right = stein_discrepancy(x, -x, statistic="v")
        >>> shifted = stein_discrepancy(x, -(x - 1.0), statistic="v")
        >>> right < 0.001 < 0.1 < shifted
        True
    """
    w, matrix, _, _ = _pairs(draws, scores, log_w, kernel, scale, lengthscale)
    if statistic == "v":
        return float(w @ matrix @ w)
    if statistic == "u":
        return _off_diagonal(w, matrix)
    raise InvalidArgument(f"statistic={statistic!r} must be 'u' or 'v'.")


def stein_test(
    draws: Tensor,  # (S, D)
    scores: Tensor,  # (S, D)
    *,
    log_w: Tensor | None = None,  # (S,)
    kernel: Kernel = "imq",
    num_bootstrap: int = 1000,
    seed: int = 0,
    scale: Tensor | None = None,  # (D,)
    lengthscale: float | None = None,
) -> SteinTest:
    r"""Test that independent draws come from p, by a wild bootstrap of the Stein discrepancy.

    Under q = p every row of :math:`k_p` has expectation zero, so that
    :math:`\sum_{i \ne j} \epsilon_i \epsilon_j w_i w_j k_p(x_i, x_j)` with random signs has, for
    many draws, the distribution of the statistic, for which all signs are one. The p-value is
    (1 + number of bootstrapped values that are no smaller) / (1 + number of them).

    With ``log_w`` this tests that the *weighted* draws have p as their limit: that the weights are
    p/q up to a constant. Few effective draws make it blind, and Pareto smoothing adds a bias that
    many draws will show. Limits otherwise as for ``stein_discrepancy``; chains of dependent draws
    need another bootstrap.

    Args:
        draws: unconstrained draws.
        scores: gradients of the log-density of p at the draws, Jacobian included.
        log_w: log-weights of the draws.
        kernel: "imq" or "rbf".
        num_bootstrap: how often signs are drawn.
        seed: of a generator of its own for the signs.
        scale: what coordinates are divided by, instead of the standard deviations.
        lengthscale: instead of the median distance.

    Raises:
        InvalidArgument: as ``stein_discrepancy`` does.

    Source: Chwialkowski, Strathmann and Gretton (2016); Liu, Lee and Jordan (2016).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(300, 2, generator=generator)
        >>> stein_test(x, -x).p_value > 0.05, stein_test(0.7 * x, -0.7 * x).p_value < 0.01
        (True, True)
    """
    checked_count("num_bootstrap", num_bootstrap, least=1)
    w, matrix, scale, lengthscale = _pairs(draws, scores, log_w, kernel, scale, lengthscale)
    weighted = w[:, None] * matrix * w
    weighted.fill_diagonal_(0.0)
    generator = own_generator(seed)
    signs = torch.randint(0, 2, (num_bootstrap, len(w)), generator=generator).to(weighted) * 2 - 1
    bootstrapped = ((signs @ weighted) * signs).sum(1)
    at_least = int((bootstrapped >= weighted.sum()).sum())
    return SteinTest(
        statistic=_off_diagonal(w, matrix),
        p_value=(1 + at_least) / (1 + num_bootstrap),
        num_bootstrap=num_bootstrap,
        kernel=kernel,
        lengthscale=lengthscale,
        scale=scale,
    )


def _off_diagonal(w: Tensor, matrix: Tensor) -> float:
    """Average over pairs of different draws."""
    total = w @ matrix @ w - (w**2 * matrix.diagonal()).sum()
    return float(total / (1 - (w**2).sum()).clamp(min=1e-300))


def _pairs(
    draws: Tensor,
    scores: Tensor,
    log_w: Tensor | None,
    kernel: Any,
    scale: Tensor | None,
    lengthscale: float | None,
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Weights (S,), the matrix of the Stein kernel (S, S), scale (D,) and length scale."""
    if kernel not in ("imq", "rbf"):
        raise InvalidArgument(f"kernel={kernel!r} must be 'imq' or 'rbf'.")
    x = checked_matrix("draws", draws)
    s = checked_matrix("scores", scores)
    if x.shape != s.shape:
        raise InvalidArgument(
            f"draws {tuple(x.shape)} and scores {tuple(s.shape)} must have one shape."
        )
    w = normalised_weights(log_w, len(x))
    scale = _scale(x, w) if scale is None else _checked_scale(scale, x.shape[1])
    x, s = x / scale, s * scale
    squared = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    if lengthscale is None:
        lengthscale = _median_distance(squared)
    elif not 0 < lengthscale < float("inf"):
        raise InvalidArgument(f"lengthscale={lengthscale!r} must be positive and finite.")
    return w, _stein_kernel(x, s, squared, kernel, lengthscale), scale, lengthscale


def _stein_kernel(
    x: Tensor,  # (S, D)
    s: Tensor,  # (S, D)
    squared: Tensor,  # (S, S)
    kernel: str,
    h: float,
) -> Tensor:  # (S, S)
    """The kernel is phi(r^2); every term follows from phi and its two derivatives."""
    if kernel == "imq":
        base = 1 + squared / h**2
        phi = base**-0.5
        first = -0.5 * base**-1.5 / h**2
        second = 0.75 * base**-2.5 / h**4
    else:
        phi = (-0.5 * squared / h**2).exp()
        first = -0.5 * phi / h**2
        second = 0.25 * phi / h**4
    along = s @ x.T  # s_i . x_j
    own = along.diagonal()
    # (s(y) - s(x)) . (x - y), as gradients of k are +-2 phi' (x - y)
    inward = along.T + along - own[:, None] - own[None, :]
    return (s @ s.T) * phi + 2 * first * inward - 2 * x.shape[1] * first - 4 * second * squared


def _scale(
    x: Tensor,  # (S, D)
    w: Tensor,  # (S,)
) -> Tensor:  # (D,)
    """Weighted standard deviations."""
    mean = w @ x
    scale = (w @ (x - mean) ** 2).sqrt()
    flat = (scale <= 1e-12 * x.abs().amax(0)).nonzero()
    if len(flat):
        raise InvalidArgument(
            f"draws do not vary in coordinate {int(flat[0])}, or one of them has all the weight: "
            "pass scale=, leave the coordinate out, or use weights with more effective draws."
        )
    return scale


def _checked_scale(scale: Any, dimension: int) -> Tensor:
    found = torch.as_tensor(scale).detach().double()
    if found.shape != (dimension,) or not bool((found > 0).all() & found.isfinite().all()):
        raise InvalidArgument(
            f"scale must be {dimension} positive numbers, one per coordinate, not {scale!r}."
        )
    return found


def _median_distance(squared: Tensor) -> float:
    upper = squared[tuple(torch.triu_indices(len(squared), len(squared), offset=1))]
    median = float(upper.median().sqrt())
    if median == 0:
        raise InvalidArgument("draws: most are copies of one another. Pass lengthscale=.")
    return median
