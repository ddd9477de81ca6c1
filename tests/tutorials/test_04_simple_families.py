"""What simple families buy and where they break, against closed forms and sums over grids."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, stats

# What simplicity buys


def log_joint(a, b):
    """Of the bioassay, without constants."""
    logits = a + 10 * b * np.array([-0.86, -0.30, -0.05, 0.73])
    likelihood = np.array([0, 1, 3, 5]) * logits - 5 * np.logaddexp(0, logits)
    return likelihood.sum() - 0.5 * (a / 2) ** 2 - 0.5 * (b - 1) ** 2


def test_the_exact_posterior_by_adaptive_quadrature(ran):
    def expected(function):
        return integrate.dblquad(
            lambda b, a: function(a, b) * math.exp(log_joint(a, b) + 6),
            -4,
            6,
            -0.5,
            4.5,
            epsabs=1e-6,
        )[0]

    mass = expected(lambda a, b: 1.0)
    mean_b = expected(lambda a, b: b) / mass
    sd_b = math.sqrt(expected(lambda a, b: (b - mean_b) ** 2) / mass)
    assert ran["exact_read"]["b"] == pytest.approx((mean_b, sd_b), abs=1e-3)


def check_one_optimum(names, tolerance):
    """From both corners; these are 2.4 to 4.7 posterior standard deviations off."""
    first, second = names["means_read"]
    exact = names["exact_read"]
    for site in "ab":
        assert first[site] == pytest.approx(second[site], abs=tolerance)
        assert first[site][0] == pytest.approx(exact[site][0], abs=tolerance + 0.06)
        assert all(abs(c["ab".index(site)] - exact[site][0]) > 0.9 for c in names["corners"])


def test_one_optimum_from_both_corners(ran):
    check_one_optimum(ran, 0.1)
    # the standard deviation of mean field is too small, as everywhere
    assert ran["means_read"][1]["b"][1] < 0.8 * ran["exact_read"]["b"][1]


def test_an_elliptical_target_keeps_its_mean_and_correlation(ran):
    """From correlation 0 and mean 0; sixty noisy steps are not the end, see the full setting."""
    assert ran["correlation_of_whole"] == pytest.approx(0.8, abs=0.15)
    assert ran["mean_of_whole"].tolist() == pytest.approx([1.0, -2.0], abs=0.35)


# Four ways to break it


def reverse_kl_of_a_normal(sd):
    """From a Student-t with two degrees of freedom."""
    return integrate.quad(
        lambda z: stats.norm.pdf(z, 0, sd) * (stats.norm.logpdf(z, 0, sd) - stats.t.logpdf(z, 2)),
        -12 * sd,
        12 * sd,
    )[0]


def reverse_kl_in_the_funnel(tau):
    """Of q(v) = N(0, tau^2) and the best q(x) for it, by quadrature in v."""
    sd = math.exp(-(tau**2) / 4)

    def given(v):  # KL of the nine x, and of v
        nine = 9 * (v / 2 - math.log(sd) + (sd**2 * math.exp(-v) - 1) / 2)
        return nine + stats.norm.logpdf(v, 0, tau) - stats.norm.logpdf(v, 0, 3)

    return integrate.quad(lambda v: stats.norm.pdf(v, 0, tau) * given(v), -9 * tau, 9 * tau)[0]


def test_the_gaps_of_mean_field_by_other_integrals(ran):
    known = ran["known"]
    tails = optimize.minimize_scalar(reverse_kl_of_a_normal, bounds=(0.5, 5)).fun
    assert known["heavy tails"] == pytest.approx(5 * tails, abs=1e-4)
    funnel = optimize.minimize_scalar(reverse_kl_in_the_funnel, bounds=(0.1, 2)).fun
    assert known["funnel"] == pytest.approx(funnel, abs=1e-6)
    precision = np.linalg.inv(0.5 * np.eye(50) + 0.5)
    gap = (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1]) / 2
    assert known["fifty dimensions"] == pytest.approx(gap, abs=1e-4)


def check_mean_field_is_at_its_optimum(names, tolerance):
    """Within a tolerance for its training, and not below it by more than Monte Carlo error.

    Of 5,000 to 10,000 log-weights, whose standard deviation is at most 1.2.
    """
    for target, best in names["known"].items():
        reached = names["gap"][target, "mean field"]
        assert best - 0.05 < reached < best + tolerance


def test_mean_field_is_at_its_optimum(ran):
    check_mean_field_is_at_its_optimum(ran, 0.1)


def check_remedies(names):
    """Each at most half of the gap of mean field, where it is meant for, and much less missed."""
    gap, missed = names["gap"], names["missed"]
    for target, remedy in {
        "eight modes": "mixture, searched",
        "heavy tails": "Student-t",
        "funnel": "structured",
    }.items():
        assert gap[target, remedy] < gap[target, "mean field"] / 3
    assert gap["fifty dimensions", "low rank"] < gap["fifty dimensions", "mean field"] - 0.3
    assert gap["eight modes", "mixture, searched"] < 0.05
    # a perfect guide misses 0.1 %; 2,000 draws: standard error 0.07 %
    assert missed["eight modes", "mixture, searched"] < 0.004
    assert missed["heavy tails", "Student-t"] < missed["heavy tails", "mean field"] / 4
    assert missed["funnel", "structured"] < missed["funnel", "mean field"] / 10


def check_failures(names, tolerance):
    gap, missed, khat, cost = (names[n] for n in ("gap", "missed", "khat", "cost"))
    # a flow of linear growth is no better than mean field on heavy tails
    assert cost["heavy tails", "flow"][0] > 1000 * cost["heavy tails", "mean field"][0]
    assert abs(gap["heavy tails", "flow"] - names["known"]["heavy tails"]) < tolerance
    assert khat["heavy tails", "flow"] > 0.7
    # heavy tails that are not needed: five nats
    assert gap["fifty dimensions", "Student-t"] > 3 * gap["fifty dimensions", "mean field"]
    # a wide local optimum of reverse KL, which k-hat approves of: worse than one mode by itself
    assert gap["eight modes", "mean field"] > 3 * -math.log(0.2)
    assert missed["eight modes", "mean field"] < 0.001
    assert khat["eight modes", "mean field"] < 0.7


def test_remedies_mend_their_own_target(ran):
    check_remedies(ran)


def test_and_fail_elsewhere(ran):
    check_failures(ran, 0.1)


def test_the_numbers_of_parameters(ran):
    counts = {cell: number for cell, (number, _) in ran["cost"].items()}
    assert counts["fifty dimensions", "mean field"] == 2 * 50
    assert counts["fifty dimensions", "low rank"] == 3 * 50
    assert counts["eight modes", "mixture, searched"] == 8 * (1 + 2 + 2)
    assert counts["heavy tails", "Student-t"] == 2 * 5
    assert counts["funnel", "mean field"] == 2 * 10


def test_a_random_start_of_the_mixture_leaves_out_modes(ran):
    searched = ran["gap"]["eight modes", "mixture, searched"]
    for direction in ("reverse", "forward"):
        assert ran["gap_from"][direction, 0] > 0.3 > 5 * searched
        assert ran["missed_from"][direction, 0] > 0.01


# The full setting


@pytest.mark.slow
def test_full_guarantees(full):
    check_one_optimum(full, 0.04)
    assert full["gaps_read"][0] == pytest.approx(full["gaps_read"][1], abs=0.01)
    assert max(full["gaps_of_pairs"]) < min(full["gaps_read"]) / 2
    # exchanged components: the heavier one is the second in one fit and the first in the other
    (first, _), (second, _) = full["weights_of_pairs"]
    assert first < 0.5 < second
    assert full["correlation_of_whole"] == pytest.approx(0.8, abs=0.02)
    assert full["mean_of_whole"].tolist() == pytest.approx([1.0, -2.0], abs=0.05)


@pytest.mark.slow
def test_full_table(full):
    check_mean_field_is_at_its_optimum(full, 0.05)
    check_remedies(full)
    check_failures(full, 0.02)
    gap, missed = full["gap"], full["missed"]
    # the wide optimum by BFGS on a sum over a grid: 5.979, with a positive Hessian
    assert gap["eight modes", "mean field"] == pytest.approx(5.979, abs=0.15)
    # a mixture without a search narrows every gap and closes none
    for target in full["targets"]:
        narrowed = gap[target, "mixture"]
        assert 0.1 < narrowed < 0.7 * gap[target, "mean field"]
    # the mode-seeking flow: most of the mass is missed, for less of a gap than that of any normal
    assert missed["eight modes", "flow"] > 0.5
    assert gap["eight modes", "flow"] < min(
        gap["eight modes", g] for g in ("mean field", "full rank")
    )
    # structure before flexibility, in the funnel
    by_gap = sorted((g for t, g in gap if t == "funnel"), key=lambda g: gap["funnel", g])
    assert by_gap[:2] == ["structured", "autoregressive"]
    assert full["cost"]["funnel", "structured"][0] < full["cost"]["funnel", "flow"][0] / 100
    # and the fewer parameters the sooner, in fifty dimensions
    ways = [gap["fifty dimensions", g] for g in ("low rank", "full rank", "flow", "mean field")]
    assert ways == sorted(ways)


@pytest.mark.slow
def test_full_costs(full):
    below = full["below_after"]
    assert set(below) == {"low rank", "mixture", "full rank", "flow"}  # Student-t never is
    assert max(below, key=below.get) == "flow"
    assert below["low rank"] < below["full rank"]
    searched = full["gap"]["eight modes", "mixture, searched"]
    assert searched < 0.01
    for direction in ("reverse", "forward"):
        assert min(full["gap_from"][direction, seed] for seed in range(3)) > 0.3
