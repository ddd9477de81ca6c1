"""What tutorial 8 says of each diagnostic, against quadrature, a long run of NUTS, or on paper."""

import math

import numpy as np
import pytest
import torch

from models import eight_schools as schools
from models import hierarchical_radon as radon

CENTRED = ("centred, reverse", "centred, forward")
GOOD = "non-centred, reverse"


# References


def test_the_sum_over_the_grid_is_the_quadrature_of_the_model(ran):
    moments, log_evidence = schools.posterior_by_quadrature()
    assert ran["log_evidence"] == pytest.approx(log_evidence, abs=1e-4)
    tau, density = ran["log_tau"].exp(), ran["density"]
    assert float((density * tau).sum() * 0.01) == pytest.approx(
        float(moments["tau"].mean), abs=1e-3
    )
    # 2000 draws of NUTS, of which a fifth are below 1: standard error .009 if they were independent
    assert abs(ran["below_one"]["exact"] - ran["below_one"]["non_centered"]) < 0.03


def test_the_run_of_nuts_in_centred_form_is_no_reference(ran):
    assert ran["below_one"]["centered"] < 0.05 < 0.19 < ran["below_one"]["exact"]
    assert ran["r_hat"]["centered"] > 1.05
    assert ran["r_hat"]["non_centered"] < 1.01


def test_left_out_evidence_is_the_ratio(ran):
    """Under complete pooling the ratio is a normal density with the moments given the others."""
    y = np.array(schools.EFFECTS)
    variance = np.array(schools.STANDARD_ERRORS) ** 2
    total = 0.0
    for j in range(8):
        rest = np.arange(8) != j
        precision = 1 / 25 + (1 / variance[rest]).sum()
        mean = (y[rest] / variance[rest]).sum() / precision
        spread = variance[j] + 1 / precision
        total += -0.5 * ((y[j] - mean) ** 2 / spread + math.log(2 * math.pi * spread))
    assert ran["pooled_loo"] == pytest.approx(total, abs=1e-3)
    assert total - ran["exact_loo"].sum() == pytest.approx(0.266, abs=1e-3)
    # 2000 draws of NUTS know each term to about .02
    assert abs(ran["nuts_loo"].pointwise - ran["exact_loo"]).max() < 0.06


# A fit that looks fine


def check_the_centred_fit(names, tolerance):
    assert abs(float(names["before"] - names["last"])) < tolerance
    elbo = names["elbo"]["centred, reverse"]
    assert names["log_evidence"] - elbo > 1.9
    assert names["guide_sd"] < 0.25 * names["exact_sd"]
    assert names["below_one"]["guide"] == 0
    assert names["diagnosis"].verdict.word in ("doubtful", "far off")
    assert names["diagnosis"].weights.k_hat > 0.7


def test_a_level_loss_and_a_missing_funnel(ran):
    """The loss of a step has a standard deviation of about 0.4, the mean of 14 one of 0.1."""
    check_the_centred_fit(ran, 0.5)


# k-hat


def test_the_tails_of_which_the_index_is_made(ran):
    """Log density of log tau has slope 1 on the left; that of theta at mu as well has slope -7."""
    slope = ran["density"].log().diff() / 0.01
    assert float(slope[0]) == pytest.approx(1.0, abs=1e-3)
    scales = torch.tensor([1e-4, 1e-5], dtype=torch.float64)
    peak = torch.distributions.Normal(torch.zeros_like(scales), scales).log_prob(0 * scales) * 8
    high, low = (peak + scales.log()).tolist()
    assert (low - high) / math.log(10) == pytest.approx(7.0, abs=1e-9)


def shares(names, name):
    """Alarms and their errors, counted anew."""
    k, off = names["k_hats"][name].tolist(), names["missed"][name].tolist()
    count = len(k)
    return (
        sum(x > 0.7 for x in k) / count,
        sum(x > 0.7 and y < 0.15 for x, y in zip(k, off, strict=True)) / count,
        sum(x <= 0.7 and y > 0.15 for x, y in zip(k, off, strict=True)) / count,
    )


def check_k_hat(names):
    for name in names["fits"]:
        found = names["alarm"][name], names["false_alarm"][name], names["false_assurance"][name]
        assert found == pytest.approx(shares(names, name))
    for name in CENTRED:
        assert names["alarm"][name] > 0.75
        assert names["repaired"][name] < 0.02 < 0.19 < names["below_one"]["exact"]
        assert names["repair_warnings"][name] == 1
    assert names["alarm"][GOOD] < 0.25
    assert names["weighted_error"][GOOD] < 0.12 < 0.5 < names["weighted_error"]["centred, reverse"]
    assert names["repair_warnings"][GOOD] == 0
    # 4000 draws of which half are effective: standard error .009, and the error of the weights
    assert abs(names["repaired"][GOOD] - names["below_one"]["exact"]) < 0.04
    # the exact index is 1
    assert 0.4 < names["tail_of_all"][GOOD] < 0.8


def test_k_hat_tells_the_coordinates_apart(ran):
    """Twenty sets: the standard error of a share is at most .11."""
    check_k_hat(ran)
    assert max(ran["false_assurance"].values()) > 0


# Leave-one-out


def check_leave_one_out(names):
    exact, gap = names["exact_loo"], names["pooled_loo"] - names["exact_loo"].sum()
    plain, corrected = names["plain"], names["corrected"]
    assert exact.sum() - plain[GOOD].elpd > 2 * gap
    assert plain[GOOD].pareto_k.max() > 0.7
    assert abs(corrected[GOOD].elpd - exact.sum()) < 0.1
    assert abs(corrected[GOOD].pointwise - exact).max() < 0.05
    assert corrected[GOOD].pareto_k.max() < 0.7
    bad = "centred, reverse"
    assert plain[bad].pareto_k.max() < 0.7
    assert names["plain_warnings"][bad] == 0
    assert names["too_high"] == 8


def test_leave_one_out_misleads_without_the_correction(ran):
    check_leave_one_out(ran)


# Radon


def check_mean_field(names, counties):
    """By reverse KL; counties: lowest ratio of standard deviations in the median."""
    name = "mean field, reverse"
    assert len(names["sd_ratio"]) == 90
    assert names["table"].k_hat[name] > 0.7
    assert names["table"].verdict[name] in ("doubtful", "far off")
    assert names["sd_ratio"].loc["sigma_a", name] < 0.7
    assert names["intercepts"][name].median() > counties


def test_radon_by_mean_field(ran):
    check_mean_field(ran, 0.9)
    assert ran["rhat_nuts"] < 1.01


def test_the_run_of_nuts_agrees_with_quadrature(ran):
    """Largest error in standard deviations, against four Monte Carlo errors."""
    exact = radon.problem().reference
    for site, found in ran["run"].sites.items():
        assert ((found.mean - exact[site].mean).abs() < 4 * found.mean_error).all()


# False assurances


def test_calibration_passes_a_prior(ran):
    readings = ran["calibration"].readings()
    assert readings["mu"].width == "too narrow"
    assert (readings["tau"].bias, readings["tau"].width) == ("none", "right")
    # the weighted mean is the posterior's; the prior of log tau has mean log 5
    corrected = float(ran["of_prior"].corrected_mean)
    assert abs(corrected - ran["exact_mean"]) < 0.1 < math.log(5) - ran["exact_mean"]
    assert ran["prior_shift"] == pytest.approx(-0.73, abs=0.1)


def test_half_of_the_mass_is_called_reliable(ran):
    found = ran["half"][60]
    assert found.verdict.word == "reliable"
    assert found.weights.effective_draws == pytest.approx(found.num_draws, rel=1e-6)
    assert found.weights.log_evidence == pytest.approx(-math.log(2), abs=1e-4)
    assert "no search for other modes" in found.notes[0]


# The full setting


@pytest.mark.slow
def test_full_eight_schools(full):
    check_the_centred_fit(full, 0.1)
    check_k_hat(full)
    check_leave_one_out(full)
    for name in full["centred_fits"]:
        assert full["weighted_error"][name] > 0.3
        assert full["alarm"][name] > 0.8
        assert full["false_alarm"][name] < 0.05
    assert max(full["false_assurance"][name] for name in full["centred_fits"]) > 0.05
    assert full["false_alarm"][GOOD] > 0.02
    for name in ("non-centred, forward", "non-centred, t, forward"):
        assert full["alarm"][name] < 0.05
        assert full["weighted_error"][name] < 0.05
    # ELBOs rank by something else
    elbo = full["elbo"]
    assert min(elbo, key=elbo.get) == "non-centred, t, forward"
    assert elbo["centred, full rank"] > max(elbo[name] for name in CENTRED)


@pytest.mark.slow
def test_full_radon(full):
    check_mean_field(full, 0.95)
    table, ratio, counties = full["table"], full["sd_ratio"].loc["sigma_a"], full["intercepts"]
    assert table.verdict["structured, reverse"] == "reliable"
    assert table.k_hat["structured, reverse"] < 0.7
    assert ratio["structured, reverse"] > 0.9
    forward = "mean field, forward"
    assert ratio["mean field, reverse"] + 0.1 < ratio[forward] < 0.9
    assert counties[forward].median() > 0.95
    assert table.verdict[forward] == "reweight"
    assert table.effective_draws[forward] < 0.1 * table.num_draws[forward]
    # a hundred effective draws know a standard deviation to 7 %
    assert abs(full["repaired_ratio"] - 1) < 0.2


@pytest.mark.slow
def test_full_modes_that_are_not_found(full):
    words = {size: found.verdict.word for size, found in full["half"].items()}
    assert words == {2: "misses mass", 20: "reliable", 60: "reliable"}
    assert full["half"][20].notes == ()
