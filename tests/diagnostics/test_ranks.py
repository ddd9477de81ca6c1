"""Uniformity of ranks, symmetry of probabilities and coverage, against laws with known answers."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_klmodes.diagnostics.coverage import expected_coverage, tarp, tarp_shares
from pyro_klmodes.diagnostics.ranks import ecdf_bands, randomised_ranks, rank_uniformity
from pyro_klmodes.diagnostics.symmetry import vsbc_reading
from pyro_klmodes.errors import InvalidArgument


def vsbc_law(count, c, shift=0.0):
    """Probabilities under a normal guide of the posterior's sd over c, shifted by its own sds."""
    return torch.special.ndtr(c * torch.randn(count) + shift)


# ranks ------------------------------------------------------------------------------------------


def test_ranks_count_the_draws_below():
    draws = torch.randn(50, 3, 2)
    truth = torch.randn(3, 2)
    assert torch.equal(randomised_ranks(draws, truth), (draws < truth).sum(0))


def test_ranks_of_discrete_latents_are_uniform():
    """Truth and four draws from one Bernoulli: chi-square over 4000 ranks."""
    draws = torch.bernoulli(torch.full((4, 4000), 0.3))
    truth = torch.bernoulli(torch.full((4000,), 0.3))
    ranks = randomised_ranks(draws, truth, generator=torch.Generator().manual_seed(1))
    assert stats.chisquare(torch.bincount(ranks, minlength=5).numpy()).pvalue > 0.01


def test_p_values_of_uniform_ranks_are_uniform():
    """400 times 100 ranks: the chi-square test in the limit, the other exactly (discrete, so
    its p-values are at least as large as uniform ones)."""
    found = [rank_uniformity(torch.randint(0, 100, (100,)), 99) for _ in range(400)]
    assert stats.kstest([f.chi_square_p for f in found], "uniform").pvalue > 0.001
    for level in (0.05, 0.2, 0.5):
        share = np.mean([f.ecdf_p <= level for f in found])
        assert share < level + 3 * math.sqrt(level * (1 - level) / 400)
        assert share > level - 3 * math.sqrt(level * (1 - level) / 400) - 0.02


def test_the_p_value_of_the_ecdf_is_exact():
    """By enumeration: 10 ranks among 2 draws, 3^10 equally probable outcomes."""
    pointwise = {}
    for outcome in itertools.product(range(3), repeat=10):
        below = (outcome.count(0), outcome.count(0) + outcome.count(1))
        pointwise[below] = pointwise.get(below, 0) + 1

    def statistic(below):
        return min(
            2 * min(stats.binom.cdf(b, 10, z), stats.binom.sf(b - 1, 10, z))
            for b, z in zip(below, (1 / 3, 2 / 3), strict=True)
        )

    ranks = torch.tensor([0] * 6 + [1] * 3 + [2])
    observed = statistic((6, 9))
    exact = sum(n for b, n in pointwise.items() if statistic(b) <= observed * (1 + 1e-9)) / 3**10
    assert 0.02 < exact < 0.5
    assert rank_uniformity(ranks, 2, bins=3).ecdf_p == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("num_values", [None, 20, 1000])
def test_bands_hold_the_whole_curve_as_often_as_they_say(num_values):
    """In 2000 simulations of 60 uniform numbers, within three standard errors."""
    bands = ecdf_bands(60, num_values=num_values)
    assert 0.95 <= bands.probability < 0.975
    u = torch.rand(2000, 60)
    if num_values is not None:
        u = ((u * num_values).floor() + 0.5) / num_values
    ecdf = (u[:, :, None] < bands.points).double().mean(1)
    inside = ((ecdf >= bands.lower - 1e-12) & (ecdf <= bands.upper + 1e-12)).all(1)
    error = math.sqrt(bands.probability * (1 - bands.probability) / 2000)
    assert abs(inside.double().mean().item() - bands.probability) < 3 * error


@pytest.mark.parametrize(("c", "shift"), [(1.6, 0.0), (0.6, 0.0), (1.0, 0.5)])
def test_wrong_guides_are_found(c, shift):
    """200 simulations of a normal guide that is too narrow, too wide, biased."""
    found = rank_uniformity((vsbc_law(200, c, shift) * 100).long(), 99)
    assert found.chi_square_p < 1e-3
    assert found.ecdf_p < 1e-3
    bands = found.bands()
    inside = (found.ecdf >= bands.lower) & (found.ecdf <= bands.upper)
    assert not inside.all()


def test_counts_and_expected_counts():
    found = rank_uniformity(torch.arange(30) % 5, 4, bins=3)
    assert found.counts.tolist() == [6, 12, 12]
    assert found.expected.tolist() == [6.0, 12.0, 12.0]
    assert found.chi_square == 0.0


# symmetry ---------------------------------------------------------------------------------------


def test_the_p_value_of_symmetry_is_exact():
    """By enumeration of the sides of 12 numbers."""
    distance = torch.arange(1, 13) / 30
    largest = []
    for signs in itertools.product((-1, 1), repeat=12):
        walk = np.cumsum(signs[::-1])
        largest.append(np.abs(walk).max())
    signs = torch.tensor([1, 1, -1, 1, 1, 1, -1, 1, 1, -1, 1, 1])
    observed = np.abs(np.cumsum(signs.numpy()[::-1])).max()
    exact = np.mean(np.array(largest) >= observed)
    found = vsbc_reading(0.5 + signs * distance)
    assert found.statistic == pytest.approx(observed / 12)
    assert 0.01 < exact < 0.5
    assert found.symmetry_p == pytest.approx(exact, abs=1e-12)


def test_the_statistic_is_that_of_kolmogorov_and_smirnov():
    p = torch.rand(101)
    expected = stats.ks_2samp(p.numpy(), 1 - p.numpy()).statistic
    assert vsbc_reading(p).statistic == pytest.approx(expected)


def test_the_usual_p_value_would_reject_too_often():
    """Mirror images are no independent samples: 11 % instead of 5 % in the limit."""
    exact, usual = [], []
    for _ in range(1000):
        p = torch.rand(60)
        exact.append(vsbc_reading(p).symmetry_p < 0.05)
        usual.append(stats.ks_2samp(p.numpy(), 1 - p.numpy()).pvalue < 0.05)
    assert np.mean(exact) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert np.mean(usual) > 0.07


def test_ties_are_seen_together():
    """Ten at .1 and ten at .9 are symmetric, in any order."""
    p = torch.tensor([0.1] * 10 + [0.9] * 10)
    assert vsbc_reading(p).statistic == 0.0
    assert vsbc_reading(p).symmetry_p == 1.0


@pytest.mark.parametrize(
    ("c", "shift", "words"),
    [
        (1.0, 0.0, "no sign"),
        (1.648, 0.0, "under-dispersed"),
        (0.5, 0.0, "over-dispersed"),
        (1.0, 0.5, "biased: the guide is too low"),
        (1.0, -0.5, "biased: the guide is too high"),
    ],
)
def test_the_reading_in_words(c, shift, words):
    found = vsbc_reading(vsbc_law(500, c, shift))
    assert found.words.startswith(words)
    assert found.sd_ratio == pytest.approx(c, rel=4 / math.sqrt(2 * 500))


# coverage ---------------------------------------------------------------------------------------


def test_coverage_of_a_guide_that_is_too_narrow():
    """Level c is covered with probability 2 Phi(Phi^-1((1 + c)/2) / 1.648) - 1."""
    found = expected_coverage(vsbc_law(4000, 1.648))
    z = torch.special.ndtri((1 + found.levels) / 2)
    expected = 2 * torch.special.ndtr(z / 1.648) - 1
    error = (expected * (1 - expected) / 4000).sqrt()
    assert ((found.observed - expected).abs() < 3 * error).all()
    assert not found.consistent.any()


def test_binomial_intervals_are_those_of_clopper_and_pearson():
    found = expected_coverage((torch.arange(40) + 0.5) / 40, [0.2, 0.5, 0.99])
    for level in range(3):
        k = round(float(found.observed[level]) * 40)
        exact = stats.binomtest(k, 40).proportion_ci(method="exact")
        assert found.lower[level].item() == pytest.approx(exact.low)
        assert found.upper[level].item() == pytest.approx(exact.high)


def posteriors(count, scale=1.0, shift=0.0, num_draws=99):
    """truth ~ N(0, I_3), x ~ N(truth, I): posterior N(x/2, I/2), with a wrong width or mean."""
    truth = torch.randn(count, 3)
    x = truth + torch.randn(count, 3)
    noise = torch.randn(count, num_draws, 3)
    return truth, x[:, None] / 2 + shift + scale * math.sqrt(0.5) * noise


def test_tarp_accepts_the_posterior():
    """200 p-values of 100 simulations each are uniform; coverage within 3.5 standard errors."""
    found, shares = [], []
    for seed in range(200):
        truth, draws = posteriors(100, num_draws=39)
        shares.append(tarp_shares(draws, truth, seed=seed))
        found.append(stats.kstest(shares[-1].numpy(), "uniform").pvalue)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    coverage = tarp(torch.cat(shares))
    error = (coverage.levels * (1 - coverage.levels) / 20_000).sqrt()
    assert ((coverage.observed - coverage.levels).abs() < 3.5 * error).all()


def test_references_are_not_the_numbers_that_the_same_seed_gave_the_draws():
    torch.manual_seed(7)
    truth = torch.rand(400, 1)
    draws = torch.rand(400, 99, 1)
    assert stats.kstest(tarp_shares(draws, truth, seed=7).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("scale", "shift"), [(0.6, 0.0), (1.7, 0.0), (1.0, 0.5)])
def test_tarp_finds_wrong_posteriors(scale, shift):
    truth, draws = posteriors(800, scale, shift)
    assert stats.kstest(tarp_shares(draws, truth).numpy(), "uniform").pvalue < 1e-3


def test_tarp_takes_the_prior_for_the_posterior_unless_references_see_the_data():
    truth = torch.randn(800, 3)
    x = truth + torch.randn(800, 3)
    prior = torch.randn(800, 99, 3)
    assert stats.kstest(tarp_shares(prior, truth).numpy(), "uniform").pvalue > 0.01
    informed = tarp_shares(prior, truth, references=x)
    assert stats.kstest(informed.numpy(), "uniform").pvalue < 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_uniformity(torch.zeros(20), 9), "vector of integers"),
        (lambda: rank_uniformity(torch.arange(5), 9), "run at least 10"),
        (lambda: rank_uniformity(torch.arange(20), 9), "must lie in"),
        (lambda: rank_uniformity(torch.arange(10), 9, bins=11), "only 10 different ranks"),
        (lambda: ecdf_bands(10, probability=1.0), "probability=1.0"),
        (lambda: ecdf_bands(0), "num_simulations=0"),
        (lambda: randomised_ranks(torch.zeros(3, 2), torch.zeros(3)), "leading dimension"),
        (lambda: randomised_ranks(torch.full((3,), math.nan), torch.zeros(())), "NaN"),
        (lambda: vsbc_reading(torch.rand(5)), "run at least 10"),
        (lambda: vsbc_reading(2 * torch.ones(20)), r"in \[0, 1\]"),
        (lambda: expected_coverage(torch.full((20,), math.nan)), r"in \[0, 1\]"),
        (lambda: expected_coverage(torch.rand(20), [1.0]), "levels"),
        (lambda: tarp(torch.rand(3, 3)), "shares must be a vector"),
        (lambda: tarp_shares(torch.rand(3, 5, 2), torch.rand(3, 1)), r"must be \(N, L, P\)"),
        (
            lambda: tarp_shares(torch.rand(3, 5, 2), torch.rand(3, 2), references=torch.rand(2, 2)),
            "references",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
