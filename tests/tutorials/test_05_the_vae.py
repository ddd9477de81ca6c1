"""Tutorial 5: which divergence acts where in a VAE, against closed forms and quadrature."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from models import linear_vae, nonlinear_latent

# Both divergences


def check_line(names, tolerance):
    """Forward KL in data space, by a loss that is reverse KL: the start is (2, 1.12)."""
    (mean, sd), (b, total) = names["forward_normal"], names["vae_normal"]
    x = names["x_bumps"]
    assert (mean, sd) == (float(x.mean()), float(x.std(correction=0)))
    assert abs(2.0 - mean) > 5 * tolerance
    assert abs(1.12 - sd) > 5 * tolerance
    assert (b, total) == pytest.approx((mean, sd), abs=tolerance)
    assert abs(total - names["reverse_normal"][1]) > 1.5
    narrow, narrow_sd = names["reverse_normal"]
    assert (narrow, narrow_sd) == pytest.approx((-2.99, 1.015), abs=0.01)
    # the value of an independent quadrature
    assert names["reverse_kl"]([narrow, math.log(narrow_sd)]) == pytest.approx(0.3540, abs=1e-4)


def check_path(names):
    """No likelihood is above that of mean and sd of the data, and no gap below zero."""
    evidence, gap = torch.tensor(names["path"]).T
    assert (names["ceiling"] - evidence).min() > -1e-5
    assert gap.min() > -1e-6
    assert gap[0] > 0.2
    assert gap[-1] < 1e-3


def test_the_model_is_where_forward_kl_of_the_data_is(ran):
    check_line(ran, 0.15)
    check_path(ran)


def test_bound_and_gap_add_up_to_the_evidence(ran):
    """By draws of the encoder, at parameters that are far from the optimum."""
    b, w, at, slope, sd = (torch.tensor(v) for v in (0.5, 1.5, 0.1, 0.2, 0.8))
    evidence, gap = ran["exact_terms"](b, w, at, slope, sd)
    x = ran["x_bumps"]
    q = Normal(at + slope * x, sd)
    torch.manual_seed(0)
    z = q.sample((2000,))
    log_w = Normal(0.0, 1.0).log_prob(z) + Normal(b + w * z, 1.0).log_prob(x) - q.log_prob(z)
    error = float(log_w.mean(1).std()) / math.sqrt(2000)
    assert abs(float(log_w.mean()) - (evidence - gap)) < 4 * error
    assert error < 0.01 * gap


# The gap


def check_gaps(names):
    assert names["of_family"] == pytest.approx(-math.log(1 - 0.9**2) / 2, abs=1e-4)
    assert names["of_network"] == pytest.approx(0.25, abs=1e-4)  # half of the weak strength, 0.5
    posterior = names["posterior"]
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert float(kl_divergence(prior, posterior).mean()) > 5e-2  # where encoders start, about
    for case, gap in names["fitted_gap"].items():
        assert gap == pytest.approx(sum(names["exact_parts"][case]), abs=2e-3)


def test_trained_encoders_have_the_gaps_of_the_closed_forms(ran):
    check_gaps(ran)


# More draws


def check_iwae(names):
    for r, exact in names["exact_elbo_gap"].items():
        gaps = names["iwae_gap"][r]
        measured, error = gaps[1]
        assert abs(measured - exact) < 4 * error
        assert error < 0.02 * exact
        values = [gap for gap, _ in gaps.values()]
        assert values == sorted(values, reverse=True)
    assert names["variance"] == pytest.approx(0.1375, abs=1e-4)
    last = names["particles"][-1]
    # what is left of order 1 / K^2 is below 5 % from 64 draws on
    gap, error = names["iwae_gap"][0.3][last]
    assert abs(gap - names["variance"] / (2 * last)) < 0.05 * gap + 4 * error
    slopes = names["slope"]
    assert slopes[0.3] < -0.85 < slopes[0.6] < -0.5 < -0.35 < slopes[0.9] < -0.1


def check_snr(names):
    first, last = names["counts"][0], names["counts"][-1]
    change = {kind: names["snr"][kind, last] / names["snr"][kind, first] for kind in names["kinds"]}
    # roots of the number of draws: 8 times
    assert 1 / 12 < change["IWAE"] < 1 / 4
    assert change["IWAE, doubly"] > 4
    assert change["ForwardKL"] > 4


def test_draws_tighten_the_bound_as_their_weights_allow(ran):
    check_iwae(ran)


def test_signal_and_noise_of_the_encoders_gradient(ran):
    """The ratio of 40 gradients has a standard error of about 11 %."""
    check_snr(ran)


# Collapse


def start_of_rates():
    torch.manual_seed(0)
    vae, x = linear_vae.LinearVAE(8, 6), linear_vae.data(200)
    with torch.no_grad():
        q = Normal(*vae.encoder(x))
        each = kl_divergence(q, Normal(torch.zeros(6), 1.0)).mean(0)
    return each.sort(descending=True).values


def check_rates(names, tolerance):
    for name, found in names["rates"].items():
        assert float((start_of_rates() - names["exact_rates"][name]).abs().max()) > 5 * tolerance
        assert float((found - names["exact_rates"][name]).abs().max()) < tolerance
        above = int((names["eigenvalues"][:6] > names["effective"][name]).sum())
        assert names["in_use"][name] == above


def test_rates_are_those_of_the_likelihood(ran):
    check_rates(ran, 0.1)


def test_the_likelihood_along_a_column(ran):
    """By the density of the model: one latent, one eigenvalue, noise as given."""
    for noise_variance in (1.0, 3.0):
        x = torch.tensor([[-1.0], [1.0]]) * math.sqrt(2.0)  # variance 2
        vae = linear_vae.LinearVAE(1, 1, math.sqrt(noise_variance)).float()

        def value(a, vae=vae, x=x):
            with torch.no_grad():
                vae.decoder.linear.weight.fill_(a)
                vae.decoder.linear.bias.zero_()
                return float(linear_vae.log_likelihood(vae.double(), x.double()).mean())

        curve = ran["along_column"](torch.tensor([0.0, 0.4, 1.0, 2.0]), 2.0, noise_variance)
        assert curve.tolist() == pytest.approx([value(a) - value(0.0) for a in (0.0, 0.4, 1, 2)])
        best = ran["lengths"][ran["along_column"](ran["lengths"], 2.0, noise_variance).argmax()]
        expected = math.sqrt(max(2.0 - noise_variance, 0.0))
        assert float(best) == pytest.approx(expected, abs=0.013)  # the spacing of the lengths


def test_an_idle_encoder_lowers_the_bound_of_the_column():
    """The dashed curve, -a^2 / 2 at unit noise, by the bound without draws."""
    x = (torch.tensor([[-1.0], [1.0]]) * math.sqrt(2.0)).double()
    vae = linear_vae.LinearVAE(1, 1, 1.0).double()
    with torch.no_grad():
        for p in (vae.encoder.linear.weight, vae.encoder.linear.bias, vae.decoder.linear.bias):
            p.zero_()
        values = []
        for a in (0.0, 0.5, 1.5):
            vae.decoder.linear.weight.fill_(a)
            values.append(float(linear_vae.elbo(vae, x)) / 2)
    assert [v - values[0] for v in values] == pytest.approx([0.0, -0.125, -1.125])


# The other direction


def check_directions(names):
    both, gaps = names["both_kl"], names["parabola_gap"]
    assert both["reverse KL"][0] < min(both["sleep"][0], both["reweighted wake-sleep"][0])
    assert both["reverse KL"][1] > max(both["sleep"][1], both["reweighted wake-sleep"][1])
    for name in both:
        measured, error = gaps[name][1]
        assert abs(measured - both[name][0]) < 4 * error + 1e-3
    # of the posterior that is drawn both modes have mass
    assert 0.55 < float(names["right_of_zero"][names["shown"]]) < 0.85
    many = names["gap_many"]
    error = math.hypot(*(gaps[name][64][1] for name in ("reverse KL", "sleep")))
    assert many["reverse KL"] - many["sleep"] > 3 * error
    assert many["reverse KL"] > 1.5 * max(many["sleep"], many["reweighted wake-sleep"])


def test_each_direction_wins_by_its_own_measure_and_the_bound_changes_sides(ran):
    check_directions(ran)


def test_the_posteriors_are_those_of_finer_quadrature(ran):
    fine = torch.linspace(-7.0, 7.0, 4001, dtype=torch.float64)
    log_joint = nonlinear_latent.log_joint(fine[:, None], ran["x_parabola"].double())
    evidence = log_joint.logsumexp(0) + (fine[1] - fine[0]).log()
    assert (evidence - ran["log_evidence"]).abs().max() < 1e-4


# Digits


def test_digits_are_learnt_and_draws_tighten(ran):
    """Without a latent and without learning a digit of 64 pixels has -64 log 2 = -44.4 nats."""
    for case, per_datum in ran["many_draws"].items():
        assert float(per_datum.mean()) > -32
        assert float(per_datum.mean()) > ran["one_draw"][case] + 0.5
        assert (ran["digit_rates"][case] >= 0).all()


# The setting that a reader sees


@pytest.mark.slow
def test_full_data_and_gaps(full):
    check_line(full, 0.05)
    check_path(full)
    assert full["line_gap"] < 1e-5
    check_gaps(full)
    assert len(full["fitted_gap"]) == 4


@pytest.mark.slow
def test_full_draws(full):
    check_iwae(full)
    check_snr(full)


@pytest.mark.slow
def test_full_collapse(full):
    check_rates(full, 0.06)
    assert list(full["in_use"].values()) == [5, 3, 3, 6]
    # the noise that is learnt is what is left, (0.4 + 0.2) / 2
    assert list(full["effective"].values())[-1] == pytest.approx(0.3, abs=0.02)


@pytest.mark.slow
def test_full_directions(full):
    check_directions(full)


@pytest.mark.slow
def test_full_digits(full):
    """Other seeds, rates and lengths: 7 to 8, 7 to 9, 12 to 13 and 12 to 14 units in use."""
    units = full["units"]
    assert max(units["ELBO", "reverse"], units["ELBO", "forward"]) <= 10
    assert min(units["IWAE", "reverse"], units["IWAE", "forward"]) >= 11
    for bound in ("ELBO", "IWAE"):
        # by the direction less than between the bounds
        assert abs(units[bound, "reverse"] - units[bound, "forward"]) <= 3
        assert full["one_draw"][bound, "forward"] < full["one_draw"][bound, "reverse"]
    assert full["gain"] > 3 * full["gain_error"] > 0
