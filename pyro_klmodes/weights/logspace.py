"""Means and normalisation of weights that are known by their logarithms.

A cell is one column of `log_w`: the K particles at one place of the `local` dimensions. A weight of
zero has the logarithm -inf. Torch differentiates `logsumexp` and `log_softmax` of a cell of nothing
but -inf to NaN, so such cells are cut out of the graph before the reduction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument

__all__ = ["log_mean_exp", "log_normalise", "power_mean", "self_normalise"]

# Below this order log(mean(exp(order * log_w))) / order loses more digits to the division than
# log1p and expm1 lose to the subtraction of one.
_SMALL_ORDER = 1e-2

# Between the limits every product order * log_w is representable in float32; beyond them the power
# mean is closer to its limit than rounding (by order * variance / 2 and log(K) / order).
_ZERO_ORDER = 1e-20
_INFINITE_ORDER = 1e20


def log_mean_exp(
    log_w: Tensor,  # (K, *local)
    dim: int = 0,
) -> Tensor:  # (*local)
    """Logarithm of the mean weight, `log((1/K) sum_k exp(log_w_k))`.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.
        dim: The dimension of the particles.

    Returns:
        The log-mean with `dim` removed. A cell of nothing but -inf gives -inf with zero gradient;
        NaN gives NaN.

    Example:
        >>> log_mean_exp(torch.tensor([1.0, 2.0]).log()).exp()
        tensor(1.5000)
    """
    empty = log_w.detach().amax(dim, keepdim=True) == -math.inf
    log_mean = torch.logsumexp(log_w.masked_fill(empty, 0.0), dim) - math.log(log_w.shape[dim])
    return log_mean.masked_fill(empty.squeeze(dim), -math.inf)


def log_normalise(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Log self-normalised weights, `log_w_k - log sum_j exp(log_w_j)`.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.

    Returns:
        Log-weights whose exponentials sum to one over the particles. A cell of nothing but -inf
        gives the uniform `-log(K)` with zero gradient; NaN makes its whole cell NaN.

    Example:
        >>> log_normalise(torch.tensor([1.0, 3.0]).log()).exp()
        tensor([0.2500, 0.7500])
    """
    empty = log_w.detach().amax(0) == -math.inf
    return torch.log_softmax(log_w.masked_fill(empty, 0.0), 0)


def self_normalise(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Self-normalised weights, `w_k / sum_j w_j`: a softmax over the particles.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.

    Returns:
        Weights that sum to one over the particles. A cell of nothing but -inf gives the uniform
        `1/K` with zero gradient; NaN makes its whole cell NaN.

    Example:
        >>> self_normalise(torch.tensor([-torch.inf, -torch.inf]))
        tensor([0.5000, 0.5000])
    """
    empty = log_w.detach().amax(0) == -math.inf
    return torch.softmax(log_w.masked_fill(empty, 0.0), 0)


def power_mean(
    log_w: Tensor,  # (K, *local)
    order: float,
) -> Tensor:  # (*local)
    """Logarithm of the power mean of the weights, `(1/order) log((1/K) sum_k w_k^order)`.

    It rises with the order: -inf is the smallest log-weight, 0 the arithmetic mean of the
    log-weights (the evidence lower bound), 1 the importance-weighted bound of Burda, Grosse and
    Salakhutdinov (2016), +inf the largest log-weight. The variational Rényi bound of Li and Turner
    (2016) with parameter alpha has `order = 1 - alpha`; the chi upper bound of Dieng, Tran,
    Ranganath, Paisley and Blei (2017) with parameter n has `order = n`.

    The gradient is the softmax of `order * log_w`. Value and gradient are continuous in the order
    through 0. Orders below 1e-20 or above 1e20 in magnitude are taken as their limits, which differ
    by less than rounding.

    Args:
        log_w: Log-weights, `(K, *local)`. -inf is a weight of zero: it counts as zero in the mean
            for positive orders, and makes the result -inf for orders up to 0.
        order: Any real number, or an infinity.

    Returns:
        The log power mean, `(*local)`. Where it is -inf its gradient is zero; NaN gives NaN. Tied
        extremes share the gradient of the infinite orders evenly.

    Raises:
        InvalidArgument: The order is NaN.

    Example:
        >>> log_w = torch.tensor([1.0, 4.0]).log()
        >>> [round(power_mean(log_w, order).exp().item(), 4) for order in (-1, 0, 1)]
        [1.6, 2.0, 2.5]
    """
    if math.isnan(order):
        raise InvalidArgument("power_mean: order is NaN; pass a real number or an infinity.")

    # The particle with the largest term w_k^order; if that one has weight zero, so has the mean.
    largest = log_w.detach().amax(0) if order > 0 else log_w.detach().amin(0)
    empty = largest == -math.inf
    log_w = log_w.masked_fill(empty, 0.0)

    magnitude = abs(order)
    if magnitude < _ZERO_ORDER:
        log_mean = log_w.mean(0)
    elif magnitude < _SMALL_ORDER:
        # The mean does not depend on the centre, so the centre needs no gradient.
        centre = largest.masked_fill(empty, 0.0)
        log_mean = centre + torch.expm1(order * (log_w - centre)).mean(0).log1p() / order
    elif magnitude <= _INFINITE_ORDER:
        log_mean = (torch.logsumexp(order * log_w, 0) - math.log(log_w.shape[0])) / order
    else:
        log_mean = log_w.amax(0) if order > 0 else log_w.amin(0)
    return log_mean.masked_fill(empty, -math.inf)
