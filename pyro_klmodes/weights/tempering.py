"""How far the weights must be flattened to keep enough effective draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights.summaries import effective_sample_size

__all__ = ["raised_exponent", "tempering_exponent"]

# Halvings of [0, 1]: the exponent is known to 2^-60, about 1e-18.
_NUM_HALVINGS = 60


def tempering_exponent(
    log_w: Tensor,  # (K, *local)
    ess_fraction: float = 0.5,
) -> Tensor:  # (*local)
    """Largest exponent in (0, 1] for which enough effective draws are left.

    The largest beta with `ESS(beta * log_w) >= ess_fraction * K`, by bisection. The effective
    sample size falls with beta, so that the exponent is unique: the derivative of its logarithm is
    twice the mean of `log_w` under the weights `w^beta` less that under `w^(2 beta)`. It is 1 where
    the weights need no tempering.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero at every exponent.
        ess_fraction: Share of the particles that must remain effective, strictly between 0 and 1.

    Returns:
        The exponents, `(*local)`, detached, computed in float64 and returned in the type of
        `log_w`. Where so many weights are zero that no exponent suffices, it is 2^-60, which makes
        the others equal. A cell with NaN gives NaN.

    Raises:
        InvalidArgument: `ess_fraction` is not strictly between 0 and 1.

    References:
        Prangle and Viscardi (2023), Distilling importance sampling for likelihood free inference,
        Journal of Computational and Graphical Statistics 32(4), which bisects its tolerance so.

    Example:
        >>> log_w = torch.tensor([0.0, 10.0])
        >>> beta = tempering_exponent(log_w, ess_fraction=0.8)
        >>> beta, effective_sample_size(beta * log_w)
        (tensor(0.1099), tensor(1.6000))
    """
    if not 0 < ess_fraction < 1:
        raise InvalidArgument(
            f"tempering_exponent: ess_fraction is {ess_fraction}; it must be strictly between "
            "0 and 1, the share of the particles that must remain effective."
        )
    exact = log_w.detach().double()
    target = ess_fraction * log_w.shape[0]

    low = torch.zeros_like(exact[0])
    high = torch.ones_like(exact[0])
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        enough = effective_sample_size(middle * exact) >= target
        low = torch.where(enough, middle, low)
        high = torch.where(enough, high, middle)

    # `low` has always enough effective draws, unless no exponent has and it stayed at zero.
    beta = torch.where(low > 0, low, high)
    size = effective_sample_size(exact)
    beta = beta.masked_fill(size >= target, 1.0).masked_fill(size.isnan(), math.nan)
    return beta.to(log_w.dtype)


def raised_exponent(
    log_prior_weight: Tensor,  # (K, *local)
    log_likelihood: Tensor,  # (K, *local)
    exponent: float,
    ess_fraction: float = 0.5,
) -> float:
    """How far the likelihood can be let in with enough effective draws left.

    The weights of the target `prior * likelihood^e` are `log_prior_weight + e * log_likelihood`.
    The result is an e between `exponent` and 1 at which their effective sample size, averaged over
    cells, is `ess_fraction * K`: 1 if that is enough there, and `exponent` itself if there are too
    few already. In between by bisection; the effective size need not fall with e, so that there may
    be other such e. It never falls below `exponent`.

    Args:
        log_prior_weight: Log-density of the draws under the prior less that under what proposed
            them, `(K, *local)`.
        log_likelihood: `(K, *local)`; -inf is a draw that the data rule out.
        exponent: The exponent so far, in [0, 1].
        ess_fraction: Share of the particles that must remain effective, strictly between 0 and 1.

    Returns:
        The new exponent, known to 2^-60.

    Raises:
        InvalidArgument: `exponent` or `ess_fraction` is out of range.

    References:
        Prangle and Viscardi (2023), Distilling importance sampling for likelihood free inference,
        Journal of Computational and Graphical Statistics 32(4).

    Example:
        >>> even, log_lik = torch.zeros(2), torch.tensor([0.0, 10.0])
        >>> round(raised_exponent(even, log_lik, 0.0, ess_fraction=0.8), 4)
        0.1099
        >>> raised_exponent(even, log_lik, 0.3, ess_fraction=0.8)
        0.3
    """
    if not 0 < ess_fraction < 1:
        raise InvalidArgument(
            f"raised_exponent: ess_fraction is {ess_fraction}; it must be strictly between 0 and 1."
        )
    if not 0 <= exponent <= 1:
        raise InvalidArgument(
            f"raised_exponent: exponent is {exponent}; it must be between 0 and 1."
        )
    base, slope = log_prior_weight.detach().double(), log_likelihood.detach().double()
    target = ess_fraction * len(base)

    def enough(e: float) -> bool:
        log_w = base if e == 0 else base + e * slope
        return bool(effective_sample_size(log_w).mean() >= target)

    if enough(1.0):
        return 1.0
    if not enough(exponent):
        return float(exponent)
    low, high = float(exponent), 1.0
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low
