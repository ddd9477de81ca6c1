"""What a set of weights says about itself and about the draws that carry it."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights.logspace import log_mean_exp, self_normalise

__all__ = ["effective_sample_size", "khat_threshold", "log_evidence", "weighted_moments"]


def effective_sample_size(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (*local)
    """Effective sample size of the weights, `(sum_k w_k)^2 / sum_k w_k^2` (Kong, 1992).

    It is between 1 and K. It is a plug-in estimate: if the draws miss the region of the large
    weights, it is too large; `pareto_khat` is the better warning.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.

    Returns:
        The effective sizes, `(*local)`. A cell of nothing but -inf gives 0 with zero gradient: no
        draw is of use. NaN gives NaN.

    Example:
        >>> import torch
        >>> effective_sample_size(torch.tensor([1.0, 3.0]).log())
        tensor(1.6000)
    """
    empty = log_w.detach().amax(0) == -math.inf
    size = 1 / self_normalise(log_w).square().sum(0)
    return size.masked_fill(empty, 0.0)


def log_evidence(
    log_w: Tensor,  # (K, *local)
) -> tuple[Tensor, Tensor]:  # (*local), (*local)
    """Importance-sampling estimate of the log-evidence and its standard error.

    The estimate is `log mean(w)`. Its standard error is that of `mean(w)` over `mean(w)` (delta
    method), `sqrt(sum_k (w_k / mean(w) - 1)^2 / (K (K - 1)))`. The estimate is biased downwards by
    about half the squared error, and the error means nothing if `pareto_khat` is above its
    threshold.

    Args:
        log_w: Log-weights `log p(x, z_k) - log q(z_k)`, `(K, *local)`; -inf is a weight of zero.

    Returns:
        The estimates, `(*local)`, and their standard errors, `(*local)`, the latter detached. A
        cell of nothing but -inf gives -inf with zero gradient. There, and if there is only one
        particle, the error is unknown and given as inf. NaN gives NaN.

    Example:
        >>> import torch
        >>> log_evidence(torch.tensor([1.0, 3.0]).log())
        (tensor(0.6931), tensor(0.5000))
    """
    num_draws = log_w.shape[0]
    estimate = log_mean_exp(log_w)
    relative = num_draws * self_normalise(log_w.detach())
    squares = (relative - 1).square().sum(0)
    unknown = estimate.detach() == -math.inf
    if num_draws == 1:
        unknown = ~estimate.detach().isnan()
    error = (squares / (num_draws * max(num_draws - 1, 1))).sqrt()
    return estimate, error.masked_fill(unknown, math.inf)


def khat_threshold(num_draws: int) -> float:
    """The largest Pareto shape that this many draws can cope with, `min(1 - 1/log10(S), 0.7)`.

    Args:
        num_draws: Number S of draws behind `pareto_khat`.

    Returns:
        The threshold: 0.7 from about 2200 draws on, and below 0 (never trust) for less than 10.

    Raises:
        InvalidArgument: There are less than two draws.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72).

    Example:
        >>> khat_threshold(100), khat_threshold(10_000)
        (0.5, 0.7)
    """
    if num_draws < 2:
        raise InvalidArgument(
            f"khat_threshold: num_draws is {num_draws}; there is no threshold below two draws."
        )
    return min(1 - 1 / math.log10(num_draws), 0.7)


def weighted_moments(
    values: Tensor,  # (K, *shape)
    log_w: Tensor,  # (K)
) -> tuple[Tensor, Tensor]:  # (*shape), (*shape)
    """Mean and standard deviation of weighted draws, element by element.

    With self-normalised weights v: `mean = sum_k v_k x_k`, `sd = sqrt(sum_k v_k (x_k - mean)^2)`.
    The standard deviation is that of the weighted sample, without a correction for its size.

    Args:
        values: Draws, `(K, *shape)`.
        log_w: One log-weight per draw, `(K,)`; -inf is a weight of zero.

    Returns:
        Mean and standard deviation, `(*shape)`, detached. If all log-weights are -inf, the draws
        count equally. NaN gives NaN.

    Raises:
        InvalidArgument: `log_w` is not one number per draw.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.0, 1.0, 9.0])
        >>> weighted_moments(values, torch.tensor([0.0, 0.0, -torch.inf]))
        (tensor(0.5000), tensor(0.5000))
    """
    if log_w.dim() != 1 or values.shape[:1] != log_w.shape:
        raise InvalidArgument(
            f"weighted_moments: values of shape {tuple(values.shape)} need log_w of shape "
            f"{tuple(values.shape[:1])}, one log-weight per draw, not {tuple(log_w.shape)}."
        )
    values = values.detach()
    weights = self_normalise(log_w.detach()).reshape(-1, *[1] * (values.dim() - 1))
    mean = (weights * values).sum(0)
    variance = (weights * (values - mean).square()).sum(0)
    return mean, variance.sqrt()
