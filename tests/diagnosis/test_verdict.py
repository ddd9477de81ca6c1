"""Evidence and verdict from log-weights with known answers."""

import dataclasses
import math

import pytest
import torch

from pyro_klmodes.diagnosis.advice import Findings, advice
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, WorstShift, undecided, verdict
from pyro_klmodes.diagnosis.weight_summary import WeightSummary, summarise_weights

GOOD = WeightSummary(
    k_hat=0.3,
    k_hat_limit=0.7,
    effective_draws=3000.0,
    num_draws=4000,
    cells=1,
    bad_cells=0,
    log_evidence=-1.0,
    log_evidence_error=0.01,
)


def test_evidence_of_two_cells_is_the_sum_of_theirs():
    # Weights 1 and 3 have mean 2 and relative standard error 1/2; constant weights 5 have none.
    log_w = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).log()

    summary = summarise_weights(log_w)

    # Half the squared error is the bias of the logarithm of a mean, to second order.
    exact = math.log(2.0) + math.log(5.0) + 0.5 * 0.5**2
    assert summary.log_evidence == pytest.approx(exact, abs=1e-12)
    assert summary.log_evidence_error == pytest.approx(0.5, abs=1e-12)
    assert summary.effective_draws == pytest.approx(1.6, abs=1e-12)  # (1 + 3)^2 / (1 + 9)
    assert summary.cells == 2


def test_k_hat_is_that_of_the_worst_cell():
    # Weights (1 - u)^-k are exactly generalised Pareto with shape k.
    levels = (torch.arange(4000) + 0.5) / 4000
    light, heavy = -0.1 * torch.log1p(-levels), -0.9 * torch.log1p(-levels)

    both = summarise_weights(torch.stack([light, heavy], dim=1))

    assert both.k_hat == pytest.approx(summarise_weights(heavy).k_hat, abs=1e-9)
    # A tail of 190 weights, and a prior worth ten that pulls towards 1/2: (190 k + 5) / 200.
    assert both.k_hat == pytest.approx(0.88, abs=0.02)
    assert both.effective_draws == pytest.approx(summarise_weights(heavy).effective_draws)


def test_a_minibatch_has_no_evidence():
    summary = summarise_weights(torch.zeros(100, 3), scale=2.0)

    assert (summary.log_evidence, summary.log_evidence_error) == (None, None)
    assert summary.effective_draws == pytest.approx(100.0)


def test_terms_without_latent_values_belong_to_the_evidence():
    assert summarise_weights(torch.zeros(100), rest=-2.5).log_evidence == -2.5


@pytest.mark.parametrize(
    ("k_hat", "word"),
    [(0.69, "doubtful"), (0.71, "doubtful"), (1.2, "far off"), (math.inf, "far off")],
)
def test_verdict_by_k_hat_where_few_draws_are_effective(k_hat, word):
    few = dataclasses.replace(GOOD, k_hat=k_hat, effective_draws=60.0)

    assert verdict(few).word == word
    assert verdict(few, TrustedEvidence(GOOD.log_evidence)).word == word


@pytest.mark.parametrize(("k_hat", "word"), [(0.69, "reliable"), (0.71, "doubtful")])
def test_verdict_by_k_hat_where_a_hundred_draws_are_effective(k_hat, word):
    some = dataclasses.replace(GOOD, k_hat=k_hat, effective_draws=101.0)

    assert verdict(some).word == word


def test_a_hundredth_of_the_draws_has_to_be_effective_whatever_k_hat_says():
    assert verdict(dataclasses.replace(GOOD, effective_draws=39.0)).word == "far off"


def test_k_hat_that_is_not_a_number_is_never_reliable():
    unknown = dataclasses.replace(GOOD, k_hat=math.nan, effective_draws=math.nan)

    assert verdict(unknown, TrustedEvidence(GOOD.log_evidence)).word == "far off"


def test_bounded_weights_in_two_lumps_are_not_far_off_whatever_k_hat_says():
    lumps = torch.cat([torch.linspace(1.0, 1.02, 3900), torch.linspace(1.9, 2.0, 100)])

    weights = summarise_weights(lumps.log())
    exact = math.log((3900 * 1.01 + 100 * 1.95) / 4000)

    assert weights.k_hat > 1.0
    bias = 0.5 * weights.log_evidence_error**2
    assert weights.log_evidence - bias == pytest.approx(exact, abs=1e-12)
    assert verdict(weights, TrustedEvidence(exact)).word == "reliable"
    assert verdict(weights).word == "doubtful"
    assert verdict(weights, TrustedEvidence(exact + 0.5)).word == "misses mass"
    assert verdict(weights, TrustedEvidence(exact - 0.5)).word == "doubtful"


def test_constant_weights_are_reliable_although_they_have_no_tail():
    constant = dataclasses.replace(GOOD, k_hat=math.inf, effective_draws=4000.0)

    assert verdict(constant).word == "reliable"


def test_missing_mass_is_named_by_its_size():
    # A guide that is exact on half of the posterior: its weights are perfect, half the evidence.
    # One draw near the other half, and k-hat rises; few effective draws would say nothing.
    exact = GOOD.log_evidence + math.log(2.0)
    strayed = dataclasses.replace(GOOD, k_hat=1.1)
    scarce = dataclasses.replace(strayed, effective_draws=30.0)

    assert (
        verdict(GOOD, TrustedEvidence(exact)).word
        == verdict(strayed, TrustedEvidence(exact)).word
        == "misses mass"
    )
    assert "50%" in verdict(GOOD, TrustedEvidence(exact)).sentence
    assert verdict(scarce, TrustedEvidence(exact)).word == "far off"


@pytest.mark.parametrize("exact", [-1.0, -0.97, -1.03])
def test_evidence_that_is_right_within_its_error_misses_nothing(exact):
    assert verdict(GOOD, TrustedEvidence(exact)).word == "reliable"


def test_a_small_shortfall_beyond_chance_is_a_far_mode_of_small_mass():
    """Five hundredths of a nat, twenty standard errors off: a mode with 5 % of the mass."""
    weights = WeightSummary(0.72, 0.7, 3900.0, 4000, 1, 1, -17.8756, 0.0021)
    assert verdict(weights, TrustedEvidence(-17.8260)).word == "misses mass"
    assert verdict(weights, TrustedEvidence(-17.8756)).word == "reliable"


def test_agreement_that_could_not_have_failed_excuses_nothing():
    weights = WeightSummary(1.3, 0.7, 700.0, 4000, 1, 1, -0.08, 0.03)
    assert verdict(weights, TrustedEvidence(0.0, 0.04)).word == "doubtful"


def test_an_uncertain_second_opinion_needs_a_larger_gap():
    """Four standard errors of both: 4 sqrt(.01^2 + .1^2) is .402."""
    assert verdict(GOOD, TrustedEvidence(-0.59, 0.1)).word == "misses mass"
    assert verdict(GOOD, TrustedEvidence(-0.61, 0.1)).word == "reliable"


@pytest.mark.parametrize(
    ("mean", "log_ratio", "word"),
    [
        (0.14, 0.0, "reliable"),
        (0.16, 0.0, "reweight"),
        (0.0, -0.13, "reliable"),
        (0.0, -0.15, "reweight"),
        (0.0, 0.15, "reweight"),
    ],
)
def test_good_weights_of_a_guide_with_other_moments(mean, log_ratio, word):
    found = verdict(GOOD, shift=WorstShift(mean, "mu", log_ratio, "tau"))

    assert found.word == word
    assert ("mu" in found.sentence) == (mean > 0.15)
    assert ("tau" in found.sentence) == (abs(log_ratio) > 0.14)


@pytest.mark.parametrize(
    ("short", "error", "expected"),
    [
        (0.009, 0.01, False),  # would not matter
        (0.02, 0.01, True),
        (0.041, 0.01, False),  # more than four standard errors: no chance
        (-0.02, 0.01, False),
    ],
)
def test_a_shortfall_that_matters_and_may_be_chance_is_undecided(short, error, expected):
    weights = dataclasses.replace(GOOD, log_evidence_error=error)
    trusted = TrustedEvidence(GOOD.log_evidence + short)

    assert undecided(weights, trusted) is expected
    assert not undecided(dataclasses.replace(weights, k_hat=0.9, effective_draws=60.0), trusted)
    assert not undecided(weights, None)


def test_bad_weights_say_nothing_about_moments():
    bad = dataclasses.replace(GOOD, k_hat=0.9, effective_draws=60.0)
    assert verdict(bad, shift=WorstShift(0.0, "mu", 0.0, "mu")).word == "doubtful"


@pytest.mark.parametrize(("matches", "remedy"), [(False, "ForwardKL"), (True, "AverageIterates")])
def test_nobody_is_told_to_do_what_was_done(matches, remedy):
    found = Findings("reweight", GOOD, coordinates=3, forward=matches, matches=matches)

    weighted, other = advice(found)

    assert 'to_arviz(result, resample="psis")' in weighted
    assert remedy in other
    assert ("ForwardKL" in other) is not matches
