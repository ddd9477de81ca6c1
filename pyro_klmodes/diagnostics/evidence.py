"""The log evidence between bounds and estimates, each called what it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.log_weights import check_log_weights
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import log_mean_exp

__all__ = ["Evidence", "evidence"]

Kind = Literal["lower bound", "upper bound", "estimate"]

# Multi-sample bounds are averaged over this many groups of draws at least.
_MIN_GROUPS = 10
# Resampled entries at a time, about a hundred megabytes.
_MAX_ENTRIES = 10_000_000


@dataclass(frozen=True)
class Evidence:
    """One number about the log evidence `log Z = log p(x)`.

    Attributes:
        name: What it is.
        value: The number, summed over the cells of the local plates.
        error: Its Monte Carlo standard error, by a bootstrap over the draws.
        kind: "lower bound" or "upper bound" if the *expectation* of the value is on that side of
            log Z; the value itself may be on the other side by chance, of which the error tells.
            "estimate" otherwise.
    """

    name: str
    value: float
    error: float
    kind: Kind


def evidence(
    log_w: Tensor,  # (S, *cells)
    *,
    reference_log_w: Tensor | None = None,  # (R, *cells)
    partitions: int = 10,
    num_bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, Evidence]:
    """Bounds and estimates of the log evidence from log-weights `log p(x, z_s) - log q(z_s)`.

    =====================  ===========  =========================================================
    name                   kind         value
    =====================  ===========  =========================================================
    ELBO                   lower bound  mean of log w
    IWAE_K                 lower bound  mean of `log (1/K) sum_k w_k` over disjoint groups of K
                                        draws, K = 2, 4, ... as long as there are ten groups
    log mean w             estimate     biased down by half its squared error (it is IWAE_S once)
    jackknife              estimate     `S log mean w - (S - 1) mean_s log mean w_(-s)`: the bias
                                        of order 1/S is removed, and no side is sure any more
    CUBO_2                 estimate     `1/2 log mean w^2`. Its exact value is an upper bound, but
                                        an average of few draws is below it (in expectation too)
    thermodynamic lower    estimate     left Riemann sum of `E_b[log w]` over b in [0, 1], where
                                        the b-th density is proportional to `q w^b`: a bound for
                                        exact expectations, here estimated by self-normalised
                                        weights `w^b`
    thermodynamic upper    estimate     right sum, likewise
    KL(q||p)               estimate     log mean w - ELBO
    =====================  ===========  =========================================================

    With draws of the posterior (exact ones, or a long chain):

    =====================  ===========  =========================================================
    EUBO                   upper bound  mean of log w over the reference draws
    KL(p||q)               estimate     EUBO - log mean w
    =====================  ===========  =========================================================

    The evidence is a product over independent cells: logarithms are added. Their error is that of
    the sum.

    Args:
        log_w: Log-weights of draws of the guide, `(S, *cells)`; -inf is a weight of zero.
        reference_log_w: The same of draws of the posterior, `(R, *cells)`. Their bootstrap takes
            them for independent, so that the error is too small for a chain: thin it.
        partitions: Number of intervals of the thermodynamic sums, at least one.
        num_bootstrap: Number of resamples behind the errors, at least two.
        seed: Seed of the resampling, which does not touch the global random state.

    Returns:
        The table above, by name. With a weight of zero the ELBO is -inf and its error is inf, and
        so for every quantity that contains it.

    Raises:
        InvalidArgument: There are fewer than two draws, an entry is NaN or +inf, all weights of a
            cell are zero, the cells of the reference differ, or a number is out of range.

    References:
        Burda, Grosse and Salakhutdinov (2016); Nowozin (2018), Debiasing evidence approximations;
        Dieng, Tran, Ranganath, Paisley and Blei (2017); Masrani, Le and Wood (2019), The
        thermodynamic variational objective; Blessing et al. (2024), Beyond ELBOs (EUBO).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> log_w = 0.5 * torch.randn(4000) - 0.125  # log Z = 0, ELBO = -1/8
        >>> table = evidence(log_w)
        >>> elbo = table["ELBO"]
        >>> elbo.kind, abs(elbo.value + 0.125) < 4 * elbo.error < 0.04
        ('lower bound', True)
        >>> table["CUBO_2"].kind, "IWAE_256" in table, "IWAE_512" in table
        ('estimate', True, False)
    """
    exact = check_log_weights(log_w, "evidence").reshape(len(log_w), -1)
    if partitions < 1 or num_bootstrap < 2:
        raise InvalidArgument(
            f"evidence: partitions is {partitions} and num_bootstrap is {num_bootstrap}; there "
            "must be at least one interval and two resamples."
        )
    bootstrap = _Bootstrap(num_bootstrap, torch.Generator().manual_seed(seed))

    found = [bootstrap("ELBO", "lower bound", exact, _mean)]
    found += [
        bootstrap(f"IWAE_{size}", "lower bound", _group_means(exact, size), _mean)
        for size in _group_sizes(len(exact))
    ]
    log_mean = bootstrap("log mean w", "estimate", exact, _log_mean)
    found.append(log_mean)
    # Both have the same error but for a share of 1/S of it.
    found.append(Evidence("jackknife", float(_jackknife(exact).sum()), log_mean.error, "estimate"))
    found.append(bootstrap("CUBO_2", "estimate", exact, _half_log_mean_square))
    for name, first in (("thermodynamic lower", 0), ("thermodynamic upper", 1)):
        exponents = [(first + i) / partitions for i in range(partitions)]
        found.append(bootstrap(name, "estimate", exact, _tempered_mean(exponents)))
    found.append(bootstrap("KL(q||p)", "estimate", exact, _log_mean_less_mean))

    if reference_log_w is not None:
        reference = _check_reference(reference_log_w, log_w)
        eubo = bootstrap("EUBO", "upper bound", reference, _mean)
        error = math.hypot(eubo.error, log_mean.error)
        found += [eubo, Evidence("KL(p||q)", eubo.value - log_mean.value, error, "estimate")]
    return {one.name: one for one in found}


def _check_reference(reference_log_w: Tensor, log_w: Tensor) -> Tensor:
    reference = check_log_weights(reference_log_w, "evidence (reference_log_w)")
    if reference.shape[1:] != log_w.shape[1:]:
        raise InvalidArgument(
            f"evidence: reference_log_w has cells of shape {tuple(reference.shape[1:])}, log_w of "
            f"shape {tuple(log_w.shape[1:])}; give the log-weights of the same local plates."
        )
    return reference.reshape(len(reference), -1)


def _group_sizes(num_draws: int) -> Iterator[int]:
    size = 2
    while size * _MIN_GROUPS <= num_draws:
        yield size
        size *= 2


def _group_means(
    log_w: Tensor,  # (S, cells)
    size: int,
) -> Tensor:  # (S // size, cells)
    num_groups = len(log_w) // size
    return log_mean_exp(log_w[: num_groups * size].reshape(num_groups, size, -1), dim=1)


def _jackknife(
    log_w: Tensor,  # (S, cells)
) -> Tensor:  # (cells)
    num_draws = len(log_w)
    log_sum = log_w.logsumexp(0)
    share = (log_w - log_sum).exp()
    # Without the only draw that counts, the sum is that of the others and not a difference.
    others = log_w.scatter(0, log_w.argmax(0, keepdim=True), -math.inf).logsumexp(0)
    log_rest = torch.where(share > 0.5, others, log_sum + torch.log1p(-share))
    log_left = log_rest - math.log(num_draws - 1)
    return num_draws * (log_sum - math.log(num_draws)) - (num_draws - 1) * log_left.mean(0)


# A statistic of weighted draws: log-weights and how often each draw counts give a number per cell.
Statistic = Callable[[Tensor, Tensor], Tensor]  # (S, cells), (B, S) -> (B, cells)


def _mean(log_w: Tensor, counts: Tensor) -> Tensor:
    return counts @ log_w / len(log_w)


def _log_mean(log_w: Tensor, counts: Tensor) -> Tensor:
    largest = log_w.amax(0)
    return (counts @ (log_w - largest).exp() / len(log_w)).log() + largest


def _half_log_mean_square(log_w: Tensor, counts: Tensor) -> Tensor:
    return _log_mean(2 * log_w, counts) / 2


def _log_mean_less_mean(log_w: Tensor, counts: Tensor) -> Tensor:
    return _log_mean(log_w, counts) - _mean(log_w, counts)


def _tempered_mean(exponents: list[float]) -> Statistic:
    """Mean over the exponents b of `E_b[log w]`."""

    def statistic(log_w: Tensor, counts: Tensor) -> Tensor:
        return torch.stack([_expectation(log_w, counts, b) for b in exponents]).mean(0)

    return statistic


def _expectation(log_w: Tensor, counts: Tensor, exponent: float) -> Tensor:
    if exponent == 0:
        return _mean(log_w, counts)
    weight = (exponent * (log_w - log_w.amax(0))).exp()
    # A weight of zero has no share in the expectation although its logarithm is infinite.
    term = torch.where(weight > 0, weight * log_w, 0.0)
    return (counts @ term) / (counts @ weight)


class _Bootstrap:
    """Values with their standard deviation over resampled draws."""

    def __init__(self, num_resamples: int, generator: torch.Generator) -> None:
        self.num_resamples = num_resamples
        self.generator = generator

    def __call__(self, name: str, kind: Kind, log_w: Tensor, statistic: Statistic) -> Evidence:
        once = log_w.new_ones(1, len(log_w))
        value = float(statistic(log_w, once).sum())
        if not math.isfinite(value):
            return Evidence(name, value, math.inf, kind)
        parts = [statistic(log_w, counts) for counts in self._resamples(log_w)]
        # Summed first: cells of the same draws need not be independent.
        error = torch.cat(parts).sum(1).std()
        return Evidence(name, value, float(error), kind)

    def _resamples(self, log_w: Tensor) -> Iterator[Tensor]:
        """How often each draw is drawn again, some resamples at a time."""
        num_draws = len(log_w)
        at_a_time = max(1, _MAX_ENTRIES // num_draws)
        for start in range(0, self.num_resamples, at_a_time):
            rows = min(at_a_time, self.num_resamples - start)
            chosen = torch.randint(num_draws, (rows, num_draws), generator=self.generator)
            counts = torch.zeros(rows, num_draws, dtype=torch.float64)
            counts.scatter_add_(1, chosen, torch.ones_like(counts))
            yield counts.to(log_w.device)
