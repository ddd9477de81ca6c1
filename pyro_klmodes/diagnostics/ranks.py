"""Ranks of true values among draws: are they uniform, as they are for the exact posterior?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from pyro_klmodes.diagnostics.matrices import checked_count
from pyro_klmodes.errors import InvalidArgument

__all__ = ["EcdfBands", "RankUniformity", "ecdf_bands", "randomised_ranks", "rank_uniformity"]

_MOST_POINTS = 100


@dataclass(frozen=True)
class EcdfBands:
    """Where the empirical distribution of N uniform numbers stays with a given probability.

    Attributes:
        points: ``(G,)``, where it is evaluated.
        lower: ``(G,)``, least values that it takes inside of the bands.
        upper: ``(G,)``, greatest.
        probability: that it is inside at all points at once; at least the one asked for.
    """

    points: Tensor
    lower: Tensor
    upper: Tensor
    probability: float


@dataclass(frozen=True)
class RankUniformity:
    """Two tests of uniform ranks.

    Attributes:
        counts: ``(B,)``, ranks per bin.
        expected: ``(B,)``, expected counts.
        chi_square: statistic of the chi-square test of the counts.
        chi_square_p: its p-value.
        ecdf: ``(G,)``, the empirical distribution at the points of ``bands()``.
        ecdf_p: p-value of the test that it stays inside of simultaneous bands.
        num_draws: L.
    """

    counts: Tensor
    expected: Tensor
    chi_square: float
    chi_square_p: float
    ecdf: Tensor
    ecdf_p: float
    num_draws: int

    def bands(self, probability: float = 0.95) -> EcdfBands:
        """Simultaneous bands for the empirical distribution, see ``ecdf_bands``."""
        return ecdf_bands(
            int(self.counts.sum()), num_values=self.num_draws + 1, probability=probability
        )


def randomised_ranks(
    draws: Tensor,  # (L, *shape)
    truth: Tensor,  # (*shape)
    *,
    generator: torch.Generator | None = None,
) -> Tensor:  # (*shape)
    """Number of draws below the true value; among draws equal to it the place is drawn at random.

    For the exact posterior the rank is uniform over 0, ..., L, for discrete latents also.

    Args:
        draws: L draws of a guide.
        truth: the value that made the data.
        generator: for ties.

    Raises:
        InvalidArgument: if shapes do not match or a draw is NaN.

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018); Modrák et al. (2023) for ties.

    Example:
        >>> randomised_ranks(torch.tensor([[0.1], [0.5], [0.9]]), torch.tensor([0.6]))
        tensor([2])
    """
    if draws.dim() != truth.dim() + 1 or draws.shape[1:] != truth.shape or len(draws) == 0:
        raise InvalidArgument(
            f"draws {tuple(draws.shape)} must be those of truth {tuple(truth.shape)} with one more "
            "leading dimension."
        )
    if bool(draws.isnan().any()) or bool(truth.isnan().any()):
        raise InvalidArgument("draws and truth must not be NaN.")
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    place = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
    return below + (place * (equal + 1)).floor().long()


def rank_uniformity(
    ranks: Tensor,  # (N,)
    num_draws: int,
    *,
    bins: int | None = None,
) -> RankUniformity:
    r"""Test that ranks are uniform over 0, ..., L.

    The chi-square test counts ranks in bins of (almost) equal width, five or more expected in each:
    ``min(20, N // 5, L + 1)`` bins by default. The other test looks at the empirical distribution
    at up to 100 points z; there N F(z) is binomial, and its statistic is the smallest two-sided
    binomial p-value over the points. Its own p-value is exact: F is a Markov chain over the
    points, so the probability of staying inside of any bands is a product of transition matrices.
    It finds shifts and wrong widths with fewer simulations than the chi-square test.

    Args:
        ranks: one for every simulation.
        num_draws: L, draws that the true value was ranked among.
        bins: number of bins of the chi-square test.

    Raises:
        InvalidArgument: for ranks that are not integers in [0, L], or fewer than ten of them.

    Source: Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based
        calibration"; Säilynoja, Bürkner and Vehtari (2022), "Graphical test for discrete
        uniformity".

    Example:
        >>> flat = rank_uniformity(torch.arange(100), 99)
        >>> steep = rank_uniformity(torch.arange(100) // 2, 99)
        >>> flat.chi_square, flat.ecdf_p > 0.9, steep.chi_square_p < 1e-6, steep.ecdf_p < 1e-6
        (0.0, True, True, True)
    """
    checked_count("num_draws", num_draws, least=1)
    ranks = _checked_ranks(ranks, num_draws)
    count = len(ranks)
    if bins is None:
        bins = max(2, min(20, count // 5, num_draws + 1))
    checked_count("bins", bins, least=2)
    if bins > num_draws + 1:
        raise InvalidArgument(f"bins={bins}: there are only {num_draws + 1} different ranks.")
    edges = torch.arange(bins + 1) * (num_draws + 1) // bins
    counts = torch.bincount(torch.bucketize(ranks, edges[1:], right=True), minlength=bins)
    expected = edges.diff().double() * count / (num_draws + 1)
    chi_square = float(((counts - expected) ** 2 / expected).sum())

    points = _points(num_draws + 1)
    inside = (ranks[:, None] < torch.tensor(points)[None, :] * (num_draws + 1) - 0.5).sum(0)
    least = float(_two_sided(inside.numpy(), count, points).min())
    return RankUniformity(
        counts=counts,
        expected=expected,
        chi_square=chi_square,
        chi_square_p=float(stats.chi2.sf(chi_square, bins - 1)),
        ecdf=inside.double() / count,
        ecdf_p=1 - _probability_inside(points, _all_two_sided(count, points), least),
        num_draws=num_draws,
    )


def ecdf_bands(
    num_simulations: int,
    *,
    num_values: int | None = None,
    probability: float = 0.95,
) -> EcdfBands:
    """Simultaneous bands for the empirical distribution of N independent uniform numbers.

    At every point the bands hold the same two-sided binomial probability; it is chosen such that
    the whole curve is inside with the probability asked for, which is computed exactly.

    Args:
        num_simulations: N.
        num_values: number of values that are equally probable, L + 1 for ranks among L draws; None
            for numbers uniform on [0, 1].
        probability: of the whole curve being inside.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Säilynoja, Bürkner and Vehtari (2022).

    Example:
        >>> bands = ecdf_bands(100)
        >>> bands.probability >= 0.95, bool((bands.lower <= bands.points).all())
        (True, True)
    """
    checked_count("num_simulations", num_simulations, least=1)
    if num_values is not None:
        checked_count("num_values", num_values, least=2)
    if not 0 < probability < 1:
        raise InvalidArgument(f"probability={probability!r} must lie between 0 and 1.")
    count = num_simulations
    points = _points(num_values)
    pointwise = _all_two_sided(count, points)
    low, high = (1 - probability) / len(points), 1 - probability  # of the level at every point
    for _ in range(15):
        middle = math.sqrt(low * high)
        if _probability_inside(points, pointwise, middle) >= probability:
            low = middle
        else:
            high = middle
    allowed = _allowed(pointwise, low)
    return EcdfBands(
        points=torch.tensor(points),
        lower=torch.tensor(allowed.argmax(1) / count),
        upper=torch.tensor((count - allowed[:, ::-1].argmax(1)) / count),
        probability=_probability_inside(points, pointwise, low),
    )


def _points(num_values: int | None) -> np.ndarray:
    """Up to 100 points in (0, 1) at which the distribution function is exactly their value."""
    if num_values is None:
        return np.arange(1, _MOST_POINTS + 1) / (_MOST_POINTS + 1)
    inner = np.arange(1, num_values)
    if len(inner) > _MOST_POINTS:
        inner = np.unique(np.linspace(1, num_values - 1, _MOST_POINTS).round().astype(int))
    return inner / num_values


def _two_sided(at: Any, count: int, points: np.ndarray) -> Any:
    """Twice the smaller tail of the binomial distribution, the value included."""
    return 2 * np.minimum(stats.binom.cdf(at, count, points), stats.binom.sf(at - 1, count, points))


def _all_two_sided(count: int, points: np.ndarray) -> np.ndarray:  # (G, N + 1)
    return np.asarray(_two_sided(np.arange(count + 1)[None, :], count, points[:, None]))


def _allowed(
    pointwise: np.ndarray,  # (G, N + 1)
    level: float,
) -> np.ndarray:  # (G, N + 1)
    """Which counts have a two-sided p-value above a level; an interval at every point."""
    return pointwise > level * (1 + 1e-9)  # rounding is no reason to allow the level itself


def _probability_inside(
    points: np.ndarray,  # (G,)
    pointwise: np.ndarray,  # (G, N + 1)
    level: float,
) -> float:
    """Probability that all counts are allowed, by walking from point to point."""
    allowed = _allowed(pointwise, level)
    count = allowed.shape[1] - 1
    if not allowed.any(1).all():
        return 0.0
    log_factorial = special.gammaln(np.arange(count + 1) + 1)
    state, probability, before = np.array([0]), np.array([1.0]), 0.0
    for row, point in zip(allowed, points, strict=True):
        following = np.nonzero(row)[0]
        step = following[:, None] - state[None, :]
        left = count - state[None, :]
        chance = (point - before) / (1 - before)
        possible = step >= 0
        step = np.where(possible, step, 0)
        log_transition = (
            log_factorial[left]
            - log_factorial[step]
            - log_factorial[left - step]
            + step * math.log(chance)
            + (left - step) * math.log1p(-chance)
        )
        probability = np.where(possible, np.exp(log_transition), 0.0) @ probability
        state, before = following, point
    return float(min(1.0, probability.sum()))


def _checked_ranks(ranks: Any, num_draws: int) -> Tensor:
    if not isinstance(ranks, Tensor) or ranks.dim() != 1 or ranks.is_floating_point():
        raise InvalidArgument("ranks must be a vector of integers, one for every simulation.")
    if len(ranks) < 10:
        raise InvalidArgument(f"ranks: {len(ranks)} simulations say nothing; run at least 10.")
    if int(ranks.min()) < 0 or int(ranks.max()) > num_draws:
        raise InvalidArgument(
            f"ranks must lie in [0, num_draws={num_draws}], but go from {int(ranks.min())} to "
            f"{int(ranks.max())}."
        )
    return ranks.contiguous()
