"""What the conformance suite catches, and what it lets pass, in tutorial 9."""

import math
import re

import pytest
import torch
from scipy import integrate, optimize

# The divergence


def test_jeffreys_is_the_sum_of_both_divergences(ran):
    """The factor of its path gradient, too: 1 + r."""
    t = torch.linspace(-5, 3, 50, dtype=torch.float64)
    for f in (ran["jeffreys"], ran["mended"]):
        assert f(t).tolist() == pytest.approx((t.exp() * t - t).tolist(), abs=1e-12)
        assert ran["path_factor"](f, t).tolist() == pytest.approx((1 + t.exp()).tolist())


def log_posterior(z):
    return -z * z / 8 - math.log(math.sqrt(8 * math.pi) / 2) - math.log1p(math.exp(-4 * z))


def jeffreys_of_normal(at):
    """By adaptive quadrature; the integrand is (q - p) log(q / p)."""
    mean, sd = at

    def integrand(z):
        log_p = log_posterior(z)
        log_q = -(((z - mean) / sd) ** 2) / 2 - math.log(sd * math.sqrt(2 * math.pi))
        return (math.exp(log_q) - math.exp(log_p)) * (log_q - log_p)

    return integrate.quad(integrand, -10, 12, limit=200)[0]


def test_the_exact_optima(ran):
    best = ran["best"]
    found = optimize.minimize(jeffreys_of_normal, [1.5, 1.2], method="Nelder-Mead")
    assert best["Jeffreys"] == pytest.approx(found.x, abs=1e-3)
    assert ran["left"]["normal"] == pytest.approx(found.fun, abs=1e-5)
    assert found.fun == pytest.approx(0.1500, abs=1e-4)
    # forward KL: mean and standard deviation of the posterior
    mean = integrate.quad(lambda z: z * math.exp(log_posterior(z)), -10, 12)[0]
    second = integrate.quad(lambda z: z * z * math.exp(log_posterior(z)), -10, 12)[0]
    assert second == pytest.approx(4, abs=1e-6)  # that of the prior, by symmetry
    expected = [mean, math.sqrt(second - mean**2)]
    assert best["forward KL"] == pytest.approx(expected, abs=1e-3)
    assert best["reverse KL"][1] < best["Jeffreys"][1] < best["forward KL"][1]


def test_fits_approach_the_optima(ran):
    """From (0, 2); sixty steps scatter by some hundredths."""
    for name, found in ran["found"].items():
        assert found == pytest.approx(ran["best"][name], abs=0.15)
    assert ran["few"][1] < ran["found"]["Jeffreys"][1]


# The suite


def test_what_the_laws_catch(ran):
    verdicts = ran["verdicts"]
    assert verdicts["jeffreys"] == ["gradients_are_finite_where_weights_are_zero"]
    assert verdicts["stabilised"][0] == "cells_are_independent"
    assert verdicts["mended"] == []
    assert math.isnan(ran["at_zero_gradient"][0])


def test_the_missing_normaliser_is_caught_by_its_integral_alone(ran):
    assert ran["outcome"] == {
        "Sinh": [],
        "SinhWithoutJacobian": ["assert_integrates_to_one"],
    }
    value, error = map(float, re.findall(r"-?\d\.\d+", ran["complaint"]))
    assert abs(value) > 4 * error
    assert ran["allowance"] == 4 * error < 0.1


def test_the_evidence_of_the_wrong_guide_is_wrong(ran):
    """Exactly log 1/2; the spread of 4000 log-weights makes 0.02 of the right one."""
    assert ran["claimed"]["right"] == pytest.approx(math.log(0.5), abs=0.05)
    assert ran["claimed"]["wrong"] < math.log(0.5) - 0.1


def test_the_right_guide_beats_the_best_normal(ran):
    assert ran["left"]["bent"] < ran["left"]["normal"] / 2


# What it lets pass


def test_a_concave_function_obeys_all_laws_and_runs_away(ran):
    assert ran["verdicts"]["turned_round"] == []
    # r^2 f'' of sqrt(r): -sqrt(r) / 4, at log-ratio 8
    assert ran["least"]["turned_round"] == pytest.approx(-math.exp(4) / 4, rel=1e-6)
    assert ran["least"]["mended"] == pytest.approx(1 + math.exp(-8), rel=1e-6)
    assert ran["astray_kl"][1] > 2 * ran["start_kl"][1]


@pytest.mark.slow
def test_full_fits_are_at_the_optima(full):
    """From (0, 2), with 500 draws: off by 0.02 over three divergences."""
    for name, found in full["found"].items():
        assert found == pytest.approx(full["best"][name], abs=0.05)
    assert full["few"][1] < full["best"]["Jeffreys"][1] - 0.05


@pytest.mark.slow
def test_full_guide(full):
    assert full["left"]["bent"] < full["left"]["normal"] / 8
    assert full["claimed"]["right"] == pytest.approx(math.log(0.5), abs=0.02)
    assert full["claimed"]["wrong"] < math.log(0.5) - 0.1
    assert full["astray_kl"][1] > 5 * full["start_kl"][1]
