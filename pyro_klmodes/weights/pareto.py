"""Pareto-smoothed importance sampling, for all cells at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["pareto_khat", "pareto_smooth", "pareto_tail_length"]

# A generalised Pareto fit needs more draws than this in the tail.
_TOO_FEW = 4

# The prior on the shape: as if this many draws had been seen with shape one half.
_PRIOR_DRAWS = 10
_PRIOR_SHAPE = 0.5

_FLOAT64 = torch.finfo(torch.float64)

# Cells at a time, few enough to stay in a processor's cache: those that are fitted, and of these
# those on the grid of the fit, where there are some 500 numbers to a cell.
_CHUNK = 512
_GRID_CHUNK = 128

# The tile of the weights that is transposed at once.
_TILE_DRAWS = 128
_TILE_CELLS = 64

# Factors whose product is taken before the logarithm, which costs ten times as much, unless it
# might overflow. It cannot underflow: no factor is below 0.0005 for up to 1e6 particles.
_GROUP = 16
_SAFE_FACTOR = 1e18
# A tail this short costs less one by one; nothing then depends on what the weights are.
_ONE_BY_ONE = 64


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
    tail_length = pareto_tail_length(num_draws)
    if tail_length <= _TOO_FEW:
        return _without_tail(log_w)

    top = _largest(log_w.reshape(num_draws, -1), tail_length + 1)
    khats = [_fit_tail(chunk.contiguous())[0] for chunk in top.split(_CHUNK, dim=1)]
    return torch.cat(khats).reshape(log_w.shape[1:]).to(log_w.dtype)


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
    tail_length = pareto_tail_length(num_draws)
    if tail_length <= _TOO_FEW:
        khat = _without_tail(log_w)
        return torch.where(khat.isnan(), khat, log_w), khat

    chunks = [_smooth(chunk, tail_length) for chunk in _chunks(log_w)]
    smoothed = torch.cat([smooth for smooth, _ in chunks], dim=1)
    khat = torch.cat([khat for _, khat in chunks])
    return smoothed.reshape(log_w.shape), khat.reshape(log_w.shape[1:]).to(log_w.dtype)


def pareto_tail_length(num_draws: int) -> int:
    """Number of the largest weights that are the tail, `ceil(min(S/5, 3 sqrt(S)))`.

    Args:
        num_draws: Number S of draws.

    Example:
        >>> pareto_tail_length(100), pareto_tail_length(4000)
        (20, 190)
    """
    return math.ceil(min(num_draws / 5, 3 * math.sqrt(num_draws)))


def _without_tail(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (*local)
    largest = log_w.amax(0)
    return torch.where(largest < math.inf, math.inf, math.nan).to(log_w.dtype)


def _chunks(
    log_w: Tensor,  # (K, *local)
) -> Iterator[Tensor]:  # (K, at most _CHUNK cells)
    yield from log_w.reshape(log_w.shape[0], -1).split(_CHUNK, dim=1)


def _largest(
    log_w: Tensor,  # (K, cells)
    count: int,
) -> Tensor:  # (count, cells), descending
    if log_w.device.type != "cpu":
        return log_w.topk(count, dim=0).values.double()

    # On a processor numpy's partition takes a sixth of the time of topk. It wants the draws of a
    # cell side by side; transposing tile by tile takes a third of the time of all at once.
    draws_first = log_w.numpy()
    num_draws, num_cells = log_w.shape
    top = np.empty((num_cells, count))
    buffer = np.empty((_TILE_CELLS, num_draws))
    for cells in _slices(num_cells, _TILE_CELLS):
        rows = buffer[: cells.stop - cells.start]
        for draws in _slices(num_draws, _TILE_DRAWS):
            rows[:, draws] = draws_first[draws, cells].T
        rows.partition(num_draws - count, axis=1)
        top[cells] = rows[:, num_draws - count :]
    top.sort(axis=1)
    return torch.from_numpy(top).T.flip(0)


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _smooth(
    log_w: Tensor,  # (K, cells)
    tail_length: int,
) -> tuple[Tensor, Tensor]:  # (K, cells), (cells)
    top = log_w.topk(tail_length + 1, dim=0)
    top_log_w = top.values.double()
    khat, sigma, in_tail, largest = _fit_tail(top_log_w)

    # Positions run from the largest weight down, plotting positions from the smallest up.
    size = in_tail.count_nonzero(0).double()
    position = torch.arange(tail_length, device=log_w.device).unsqueeze(1)
    probability = (size - position - 0.5) / size
    excess = sigma * _unit_pareto_quantile(probability, khat)
    cutoff = _cutoff(top_log_w[-1] - largest)
    quantile = (excess + cutoff.exp()).log().clamp(max=0.0) + largest
    smoothed_tail = torch.where(in_tail & khat.isfinite(), quantile, top_log_w[:-1])

    smoothed = log_w.scatter(0, top.indices[:-1], smoothed_tail.to(log_w.dtype))
    return smoothed.masked_fill_(khat.isnan(), math.nan), khat


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
    size = in_tail.count_nonzero(0).double()

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

    quartile_place = size - ((size + 2) / 4).floor()
    quartile = excess.gather(0, quartile_place.clamp(min=0, max=len(excess) - 1).long()[None])
    spacing = 1 - (grid_size / (grid - 0.5)).sqrt()
    theta = spacing / (3 * quartile) + 1 / excess[0]

    shape = _profile_shape(theta, excess, size)
    log_likelihood = size * ((-theta / shape).log() - shape - 1)
    weight = log_likelihood.masked_fill(~on_grid, -math.inf).softmax(0)
    weight = torch.where(weight >= 10 * _FLOAT64.eps, weight, 0.0)
    theta_mean = (torch.where(weight > 0, theta, 0.0) * weight).sum(0) / weight.sum(0)

    shape_mean = torch.log1p(-theta_mean * excess).sum(0) / size
    sigma = -shape_mean / theta_mean
    shrunk = (size * shape_mean + _PRIOR_DRAWS * _PRIOR_SHAPE) / (size + _PRIOR_DRAWS)
    return shrunk, sigma


def _profile_shape(
    theta: Tensor,  # (grid, cells)
    excess: Tensor,  # (tail_length, cells)
    size: Tensor,  # (cells)
) -> Tensor:  # (grid, cells)
    """The shape of largest likelihood at each theta, `mean log(1 - theta x)`."""
    log_product = [
        _log_product(*chunk)
        for chunk in zip(
            theta.split(_GRID_CHUNK, dim=1), excess.split(_GRID_CHUNK, dim=1), strict=True
        )
    ]
    return torch.cat(log_product, dim=1) / size


def _log_product(
    theta: Tensor,  # (grid, cells)
    excess: Tensor,  # (tail_length, cells)
) -> Tensor:  # (grid, cells)
    """Sum of `log(1 - theta x)` over the tail."""
    if len(excess) <= _ONE_BY_ONE:
        return _log_grouped_product(theta, excess, 1)
    log_product = _log_grouped_product(theta, excess, _GROUP)
    too_wide = ~(1 - theta.amin(0) * excess[0] < _SAFE_FACTOR)
    if too_wide.any():
        one_by_one = _log_grouped_product(theta[:, too_wide], excess[:, too_wide], 1)
        log_product[:, too_wide] = one_by_one
    return log_product


def _log_grouped_product(
    theta: Tensor,  # (grid, cells)
    excess: Tensor,  # (tail_length, cells)
    group: int,
) -> Tensor:  # (grid, cells)
    # The members of a group are spread over the tail, which keeps the products even.
    rows = pad(excess, (0, 0, 0, -len(excess) % group))
    rows = rows.reshape(group, len(rows) // group, excess.shape[1])

    one = excess.new_ones(())
    theta = theta.unsqueeze(1)
    product = torch.addcmul(one, theta, rows[0], value=-1)
    factor = torch.empty_like(product)
    for row in rows[1:]:
        torch.addcmul(one, theta, row, value=-1, out=factor)
        product *= factor
    return product.log_().sum(1)


def _unit_pareto_quantile(
    probability: Tensor,  # (tail_length, cells)
    shape: Tensor,  # (cells)
) -> Tensor:  # (tail_length, cells)
    """Quantile of the generalised Pareto distribution of scale one."""
    log_survival = torch.log1p(-probability)
    exponential = shape.abs() < _FLOAT64.eps
    return torch.where(exponential, -log_survival, torch.expm1(-shape * log_survival) / shape)
