"""Pareto-smoothed importance sampling, for all cells at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pareto_khat", "pareto_smooth"]

# A generalised Pareto fit needs more draws than this in the tail.
_TOO_FEW = 4

# The prior on the shape: as if this many draws had been seen with shape one half.
_PRIOR_DRAWS = 10
_PRIOR_SHAPE = 0.5

_FLOAT64 = torch.finfo(torch.float64)


def pareto_khat(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (*local)
    """Estimated shape of the tail of the weights: how far importance sampling can be trusted.

    A generalised Pareto distribution is fitted to the `ceil(min(K/5, 3 sqrt(K)))` largest weights
    of each cell, less the next largest weight, by the method of Zhang and Stephens (2009) with a
    weakly informative prior that pulls the shape towards 1/2 with the strength of ten draws. The
    weights have about `1/khat` finite moments. Compare the result with `khat_threshold(K)`.

    Weights without a tail give `khat = inf`: at most twenty particles, or at most four weights
    above the cut. So do weights to which the distribution cannot be fitted in double precision,
    because those in the tail are equal but for rounding or span hundreds of orders of magnitude
    (ArviZ then gives a small shape and NaN weights; otherwise the results agree). Constant weights
    have no tail either although they are ideal: look at the effective sample size as well.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.

    Returns:
        The shapes, `(*local)`, detached, computed in float64 and returned in the type of `log_w`.
        A cell with NaN or +inf gives NaN.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72);
        Zhang and Stephens (2009), Technometrics 51(3).

    Example:
        >>> exponential = -torch.log1p(-(torch.arange(4000) + 0.5) / 4000)
        >>> pareto_khat(torch.stack([0.2 * exponential, 0.9 * exponential], dim=1))
        tensor([0.2193, 0.8703])
    """
    log_w = log_w.detach()
    num_draws = log_w.shape[0]
    tail_length = _tail_length(num_draws)
    if tail_length <= _TOO_FEW:
        return _without_tail(log_w)

    top = log_w.reshape(num_draws, -1).topk(tail_length + 1, dim=0).values
    khat, _, _, _ = _fit_tail(top.double())
    return khat.reshape(log_w.shape[1:]).to(log_w.dtype)


def pareto_smooth(
    log_w: Tensor,  # (K, *local)
) -> tuple[Tensor, Tensor]:  # (K, *local), (*local)
    """Log-weights whose largest values are replaced by quantiles of a fitted Pareto tail.

    The r-th smallest of the n weights in the tail becomes the quantile `(r - 1/2)/n` of the fitted
    distribution (see `pareto_khat`), but at most the largest weight there was. This bounds the
    variance at the price of a small bias.

    The result is *not* normalised: it is on the scale of `log_w`, all weights below the tail are
    left as they were, and `log_mean_exp` of it is the smoothed evidence. `log_normalise` of it is
    what ArviZ returns by default.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.

    Returns:
        The smoothed log-weights, `(K, *local)`, and `khat`, `(*local)`, both detached, computed in
        float64 and returned in the type of `log_w`. Cells without a tail (`khat = inf`) keep their
        weights. A cell with NaN or +inf gives NaN for both. Equal weights in the tail get
        different smoothed values, in no particular order.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72).

    Example:
        >>> log_w = torch.linspace(0.0, 1.0, 100) ** 8
        >>> smoothed, khat = pareto_smooth(log_w)
        >>> bool((smoothed[:79] == log_w[:79]).all()), bool(smoothed.max() <= log_w.max())
        (True, True)
    """
    log_w = log_w.detach()
    num_draws = log_w.shape[0]
    tail_length = _tail_length(num_draws)
    if tail_length <= _TOO_FEW:
        khat = _without_tail(log_w)
        return torch.where(khat.isnan(), khat, log_w), khat

    flat = log_w.reshape(num_draws, -1)
    top = flat.topk(tail_length + 1, dim=0)
    top_log_w = top.values.double()
    khat, sigma, in_tail, largest = _fit_tail(top_log_w)

    # Positions run from the largest weight down, plotting positions from the smallest up.
    size = in_tail.sum(0)
    position = torch.arange(tail_length, device=log_w.device).unsqueeze(1)
    probability = (size - position - 0.5) / size
    excess = sigma * _unit_pareto_quantile(probability, khat)
    cutoff = _cutoff(top_log_w[-1] - largest)
    quantile = (excess + cutoff.exp()).log().clamp(max=0.0) + largest
    smoothed_tail = torch.where(in_tail & khat.isfinite(), quantile, top_log_w[:-1])

    smoothed = flat.scatter(0, top.indices[:-1], smoothed_tail.to(log_w.dtype))
    smoothed.masked_fill_(khat.isnan(), math.nan)
    return smoothed.reshape(log_w.shape), khat.reshape(log_w.shape[1:]).to(log_w.dtype)


def _tail_length(num_draws: int) -> int:
    return math.ceil(min(num_draws / 5, 3 * math.sqrt(num_draws)))


def _without_tail(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (*local)
    largest = log_w.amax(0)
    return torch.where(largest < math.inf, math.inf, math.nan).to(log_w.dtype)


def _cutoff(
    log_ratio: Tensor,  # (cells)
) -> Tensor:  # (cells)
    """Where the tail begins; never below the smallest weight that is a normal number."""
    return log_ratio.clamp(min=math.log(_FLOAT64.tiny))


def _fit_tail(
    top: Tensor,  # (tail_length + 1, cells), descending
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # (cells), (cells), (tail_length, cells), (cells)
    """Shape and scale of the tail, which of the top weights are in it, and the largest of them."""
    # A cell of nothing but -inf would be NaN less itself; any finite reference leaves it without
    # a tail, as it should be.
    largest = top[0].masked_fill(top[0] == -math.inf, 0.0)
    log_ratio = top - largest
    cutoff = _cutoff(log_ratio[-1])
    # Weights tied with the cutoff are not in the tail, so that its length differs between cells.
    in_tail = log_ratio[:-1] > cutoff
    excess = (log_ratio[:-1].exp() - cutoff.exp()).masked_fill(~in_tail, 0.0)
    size = in_tail.sum(0)

    shape, sigma = _fit_generalised_pareto(excess, size)
    # A fit fails if the excesses of the tail are lost to rounding: there is no tail then, either.
    fitted = (size > _TOO_FEW) & shape.isfinite() & (sigma > 0)
    khat = torch.where(fitted, shape, math.inf).masked_fill(~(largest < math.inf), math.nan)
    return khat, sigma, in_tail, largest


def _fit_generalised_pareto(
    excess: Tensor,  # (tail_length, cells), descending, zero behind the tail
    size: Tensor,  # (cells), number of excesses in the tail
) -> tuple[Tensor, Tensor]:  # (cells), (cells)
    """Shape and scale of Zhang and Stephens (2009), with the prior on the shape.

    The likelihood depends on `theta = -shape/scale` once the shape is profiled out as
    `mean log(1 - theta x)`. Theta is averaged over a grid with the profile likelihood as weight. A
    cell with too small a tail gives meaningless numbers; the caller discards them.
    """
    grid_size = 30 + size.sqrt().floor()
    grid_length = 30 + math.isqrt(excess.shape[0])
    grid = torch.arange(1, grid_length + 1, device=excess.device).unsqueeze(1)
    on_grid = grid <= grid_size

    quartile_rank = torch.div(size + 2, 4, rounding_mode="floor")
    quartile = excess.gather(0, (size - quartile_rank).clamp(min=0, max=len(excess) - 1)[None])
    spacing = 1 - (grid_size / (grid - 0.5)).sqrt()
    theta = spacing / (3 * quartile) + 1 / excess[0]

    # One grid point at a time: all at once would need grid_length times the memory of the tail.
    shape = torch.stack([_profile_shape(point, excess, size) for point in theta])
    log_likelihood = size * ((-theta / shape).log() - shape - 1)
    weight = log_likelihood.masked_fill(~on_grid, -math.inf).softmax(0)
    weight = torch.where(weight >= 10 * _FLOAT64.eps, weight, 0.0)
    theta_mean = (torch.where(weight > 0, theta, 0.0) * weight).sum(0) / weight.sum(0)

    shape_mean = _profile_shape(theta_mean, excess, size)
    sigma = -shape_mean / theta_mean
    shrunk = (size * shape_mean + _PRIOR_DRAWS * _PRIOR_SHAPE) / (size + _PRIOR_DRAWS)
    return shrunk, sigma


def _profile_shape(
    theta: Tensor,  # (cells)
    excess: Tensor,  # (tail_length, cells)
    size: Tensor,  # (cells)
) -> Tensor:  # (cells)
    # In place: this is called for every grid point and allocating would take half of the time.
    return (-theta * excess).log1p_().sum(0) / size


def _unit_pareto_quantile(
    probability: Tensor,  # (tail_length, cells)
    shape: Tensor,  # (cells)
) -> Tensor:  # (tail_length, cells)
    """Quantile of the generalised Pareto distribution of scale one."""
    log_survival = torch.log1p(-probability)
    exponential = shape.abs() < _FLOAT64.eps
    return torch.where(exponential, -log_survival, torch.expm1(-shape * log_survival) / shape)
