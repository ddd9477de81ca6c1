"""Iterates of an optimiser as Markov chains: are they stationary, and how exact is their mean?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument

__all__ = ["IterateAverage", "iterate_average", "iterate_ess", "iterate_rhat"]


@dataclass(frozen=True)
class IterateAverage:
    """The mean of iterates and how exact it is.

    Attributes:
        mean: ``(P,)``, of all iterates.
        sd: ``(P,)``, standard deviation of the iterates.
        ess: ``(P,)``, effective number of independent iterates, for the mean.
        mcse: ``(P,)``, Monte Carlo standard error of the mean, ``sd / sqrt(ess)``.
    """

    mean: Tensor
    sd: Tensor
    ess: Tensor
    mcse: Tensor


def iterate_rhat(
    iterates: Tensor,  # (T, P) or (chains, T, P)
) -> Tensor:  # (P,)
    r"""Rank-normalised split R-hat of every parameter.

    Chains are split in halves, values replaced by normal scores of their ranks,

    .. math:: \hat R = \sqrt{\frac{n - 1}{n} + \frac{B}{n W}},

    with B/n the variance of the means of the halves and W the mean of their variances. The larger
    of this and the same of the distances from the median is returned, so that drifts of location
    and of scale are seen. For a single run it compares its first half with its second. Below 1.1
    optimisers are taken to be stationary (Dhaka et al., 2020), chains below 1.01. Equals
    ``arviz.rhat``, which refuses a single run. Parameters that do not move are stationary: 1.

    Args:
        iterates: of one run or several, in order.

    Raises:
        InvalidArgument: for fewer than four iterates or numbers that are not finite.

    Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021); Dhaka et al. (2020), "Robust,
        accurate stochastic optimization for variational inference".

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = torch.randn(500, 1, generator=generator)
        >>> drift = noise + torch.linspace(0, 5, 500)[:, None]
        >>> [round(float(iterate_rhat(x)), 1) for x in (noise, drift)]
        [1.0, 1.8]
    """
    halves = _split(_checked(iterates))
    flat = halves.amax((0, 1)) == halves.amin((0, 1))
    everything = halves.reshape(-1, halves.shape[2])
    median = _median(everything)
    rhat = torch.maximum(
        _plain_rhat(_normal_scores(halves)), _plain_rhat(_normal_scores((halves - median).abs()))
    )
    return torch.where(flat, 1.0, rhat)


def iterate_ess(
    iterates: Tensor,  # (T, P) or (chains, T, P)
) -> Tensor:  # (P,)
    r"""Bulk effective sample size of every parameter: how many independent values count as much.

    :math:`CT / \hat\tau` with the autocorrelation time
    :math:`\hat\tau = 1 + 2 \sum_t \hat\rho_t` of rank-normalised split chains, the sum cut by
    Geyer's initial monotone sequence. Equals ``arviz.ess``.

    Args:
        iterates: of one run or several, in order.

    Raises:
        InvalidArgument: for fewer than four iterates or numbers that are not finite.

    Source: Vehtari et al. (2021); Geyer (1992).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> steps = torch.randn(2000, 1, generator=generator)
        >>> bool(iterate_ess(steps) > 1500), bool(iterate_ess(steps.cumsum(0)) < 50)
        (True, True)
    """
    return _ess(_normal_scores(_split(_checked(iterates))))


def iterate_average(
    iterates: Tensor,  # (T, P) or (chains, T, P)
) -> IterateAverage:
    r"""Mean of stationary iterates with its Monte Carlo standard error.

    At a constant learning rate the iterates scatter around the optimum; their mean has an error of
    :math:`\mathrm{sd} / \sqrt{\mathrm{ESS}}`, where ESS counts autocorrelation. Only for iterates
    that ``iterate_rhat`` finds stationary. The error does not know of the bias by which the mean of
    the iterates differs from the optimum, which is of the order of the learning rate.

    Args:
        iterates: of one run or several, in order.

    Raises:
        InvalidArgument: for fewer than four iterates or numbers that are not finite.

    Source: Dhaka et al. (2020); Welandawe, Andersen, Vehtari and Huggins (2022).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = iterate_average(3.0 + torch.randn(400, 1, generator=generator))
        >>> bool((found.mean - 3.0).abs() < 3 * found.mcse), round(float(found.mcse), 2)
        (True, 0.05)
    """
    chains = _checked(iterates)
    everything = chains.reshape(-1, chains.shape[2])
    sd = everything.std(0)
    ess = _ess(_split(chains))
    return IterateAverage(mean=everything.mean(0), sd=sd, ess=ess, mcse=sd / ess.sqrt())


def _checked(iterates: Any) -> Tensor:  # (chains, T, P)
    if not isinstance(iterates, Tensor) or iterates.dim() not in (2, 3) or iterates.numel() == 0:
        found = tuple(iterates.shape) if isinstance(iterates, Tensor) else type(iterates).__name__
        raise InvalidArgument(f"iterates must have shape (T, P) or (chains, T, P), not {found}.")
    chains = iterates.detach().double()
    chains = chains if chains.dim() == 3 else chains.unsqueeze(0)
    if chains.shape[1] < 4:
        raise InvalidArgument(f"iterates: {chains.shape[1]} are too few; pass at least 4.")
    if not bool(chains.isfinite().all()):
        raise InvalidArgument("iterates must be finite; the optimisation has diverged.")
    return chains


def _split(chains: Tensor) -> Tensor:  # (2 chains, T // 2, P)
    half = chains.shape[1] // 2
    return torch.cat([chains[:, :half], chains[:, -half:]])


def _median(x: Tensor) -> Tensor:  # (P,)
    """The middle one, or the mean of the middle two."""
    ordered = x.sort(0).values
    return (ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2


def _normal_scores(
    chains: Tensor,  # (C, T, P)
) -> Tensor:  # (C, T, P)
    """Normal quantiles of ranks among all values of a parameter (Blom, 1958)."""
    flat = chains.reshape(-1, chains.shape[2])
    ranks = torch.tensor(stats.rankdata(flat.numpy(), method="average", axis=0))
    return torch.special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(chains.shape)


def _plain_rhat(
    chains: Tensor,  # (C, T, P)
) -> Tensor:  # (P,)
    length = chains.shape[1]
    between = chains.mean(1).var(0)
    within = chains.var(1).mean(0)
    # halves that do not move at all agree, or they are infinitely far apart
    ratio = torch.where(within > 0, between / within, torch.where(between > 0, math.inf, 0.0))
    return (ratio + (length - 1) / length).sqrt()


def _ess(
    chains: Tensor,  # (C, T, P)
) -> Tensor:  # (P,)
    count, length, _ = chains.shape
    covariance = _autocovariance(chains).mean(0)  # (T, P)
    within = covariance[0] * length / (length - 1)
    total = covariance[0] + (chains.mean(1).var(0) if count > 1 else 0.0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1.0
    number = count * length
    found = [_autocorrelation_time(column, number) for column in correlation.T.tolist()]
    flat = chains.amax((0, 1)) - chains.amin((0, 1)) < 1e-15
    return torch.where(flat, number, number / torch.tensor(found, dtype=torch.float64))


def _autocovariance(chains: Tensor) -> Tensor:  # (C, T, P)
    length = chains.shape[1]
    centred = chains - chains.mean(1, keepdim=True)
    transformed = torch.fft.rfft(centred, n=2 * length, dim=1)
    return torch.fft.irfft(transformed.abs() ** 2, n=2 * length, dim=1)[:, :length] / length


def _autocorrelation_time(rho: list[float], number: int) -> float:
    """Geyer's initial monotone sequence: pair sums as long as positive, made to fall."""
    last = len(rho)
    kept = [rho[0], rho[1]]
    even, odd, t = rho[0], rho[1], 1
    while t < last - 3 and even + odd > 0:
        even, odd = rho[t + 1], rho[t + 2]
        kept += [even, odd] if even + odd >= 0 else [0.0, 0.0]
        t += 2
    end = t - 2  # the last pair that counts in full ends here
    kept += [0.0, 0.0]
    if even > 0:  # half a pair improves the estimate
        kept[end + 1] = even
    for s in range(1, end - 1, 2):
        before = kept[s - 1] + kept[s]
        if kept[s + 1] + kept[s + 2] > before:
            kept[s + 1] = kept[s + 2] = before / 2
    time = -1 + 2 * math.fsum(kept[: end + 1]) + kept[end + 1]
    return max(time, 1 / math.log10(number))
