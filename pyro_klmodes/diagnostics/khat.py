"""Pareto k-hat with its spread, and how many draws it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.log_weights import check_log_weights
from pyro_klmodes.weights import khat_threshold, pareto_khat, pareto_tail_length

__all__ = ["KHat", "khat"]

# The prior of the fit counts as this many draws of the tail.
_PRIOR_DRAWS = 10


@dataclass(frozen=True)
class KHat:
    """Pareto shapes of the weights, one for every cell.

    Attributes:
        value: k-hat, `(*cells)`; inf for weights without a tail.
        spread: Its Monte Carlo standard deviation, `(*cells)`; inf where there is no tail.
        num_draws: Number S of draws behind it.
        limit: The largest k-hat with which S draws can be trusted, `min(1 - 1/log10 S, 0.7)`.
        minimum_draws: Draws that a k-hat of this size asks for, `10^(1/(1 - max(0, k)))`,
            `(*cells)`; inf from k = 1 on.
    """

    value: Tensor  # (*cells)
    spread: Tensor  # (*cells)
    num_draws: int
    limit: float
    minimum_draws: Tensor  # (*cells)


def khat(
    log_w: Tensor,  # (S, *cells)
) -> KHat:
    """Pareto k-hat of every cell, with its spread and the number of draws it asks for.

    The spread is the asymptotic standard deviation of the shape of M tail draws, times the share
    of the data in the estimate next to the prior, `(1 + k)/sqrt(M) * M/(M + 10)`. Over 200
    repetitions with S from 1000 to 20,000 it was within 15 % of the standard deviation of k-hat:
    for normal and Student-t pairs with k between 0.2 and 0.8, and for up to a hundred correlated
    normals with their mean-field guide.

    The spread says how far k-hat would be from itself with other draws, not how far it is from the
    index of the tail at infinity, which shows late. For normals with correlation 1/2 and their
    mean-field guide the index in 2, 5, 20 and 100 dimensions is 0.5, 0.8, 0.95 and 0.99; k-hat of
    20,000 draws is 0.47, 0.73, 0.87 and 0.91 on average, too small by up to one spread.

    Args:
        log_w: Log-weights, draws first, `(S, *cells)`; -inf is a weight of zero.

    Returns:
        The shapes of all cells.

    Raises:
        InvalidArgument: There are fewer than two draws, an entry is NaN or +inf, or all weights of
            a cell are zero.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), Journal of Machine Learning Research 25(72);
        Zhang and Stephens (2009), Technometrics 51(3).

    Example:
        >>> exponential = -torch.log1p(-(torch.arange(4000) + 0.5) / 4000)
        >>> shape = khat(torch.stack([0.2 * exponential, 0.9 * exponential], dim=1))
        >>> [[round(x, 2) for x in row] for row in (shape.value.tolist(), shape.spread.tolist())]
        [[0.22, 0.87], [0.08, 0.13]]
        >>> shape.limit, bool(shape.minimum_draws[1] > 1e7)
        (0.7, True)
    """
    exact = check_log_weights(log_w, "khat")
    num_draws = exact.shape[0]
    value = pareto_khat(exact)
    tail = pareto_tail_length(num_draws)
    # Below -1/2 the variance of the shape does not follow the formula any more; it stays small.
    spread = (1 + value.clamp(min=-0.5)) / math.sqrt(tail) * tail / (tail + _PRIOR_DRAWS)
    wanted = 10 ** (1 / (1 - value.clamp(min=0.0, max=1.0)))
    return KHat(
        value=value,
        spread=spread,
        num_draws=num_draws,
        limit=khat_threshold(num_draws),
        minimum_draws=torch.where(value < 1, wanted, math.inf),
    )
