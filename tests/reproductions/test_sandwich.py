"""Bounds on the log-evidence from both sides, and how a finite number of particles breaks them.

The Renyi bounds of p = N(0, I) and q = N((1, 1), I) in two dimensions (Li and Turner, 2016, figure
2) are ``-alpha`` exactly, as D_alpha(q || p) = alpha |mu|^2 / 2 and the evidence is one. The chi
upper bound (Dieng, Tran, Ranganath, Paisley and Blei, 2017) is that of alpha = -1. The
thermodynamic sums (Masrani, Le and Wood, 2019) are tested with their objective.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import CUBO, IWAE, Renyi, ReverseKL
from pyro_klmodes.objectives import ForwardKL, PowerMean

#: ``E L_alpha`` at K particles, from ``expected_bound``
TABLE = {
    -1.0: {1: -1.0, 2: -0.4717, 5: 0.0153, 50: 0.6475, 500: 0.8860, 5000: 0.9694},
    0.0: {1: -1.0, 2: -0.6254, 5: -0.3249, 50: -0.0511, 500: -0.0061, 5000: -0.0006},
    0.5: {1: -1.0, 2: -0.7742, 5: -0.6190, 50: -0.5128, 500: -0.5013, 5000: -0.5001},
    2.0: {1: -1.0, 2: -1.3746, 5: -1.6751, 50: -1.9489, 500: -1.9939, 5000: -1.9994},
}
CASES = [(alpha, K) for alpha, row in TABLE.items() for K in row]


def expected_bound(alpha, num_particles):
    """The finite-K expectation without sampling.

    Log-weights are 1 - z_1 - z_2 ~ N(-1, 2), so ``log E_q w^a / a`` with a = 1 - alpha is
    ``-1 + a = -alpha``; for S the sum of K powers, ``E log S`` is the integral over u of
    ``exp(-t) - E[exp(-t S)]`` at ``t = e^u``, and the expectation is that of one power to the K.
    """
    noise = torch.arange(-10.0, 10.0, 0.05)
    density = torch.exp(-(noise**2) / 2)
    power = ((1 - alpha) * (-1 + math.sqrt(2) * noise)).exp()
    t = torch.arange(-40.0, 30.0, 0.05).exp()
    laplace = (density @ torch.exp(-power.unsqueeze(1) * t)) / density.sum()
    log_sum = 0.05 * (torch.exp(-t) - laplace**num_particles).sum()
    return ((log_sum - math.log(num_particles)) / (1 - alpha)).item()


def model():
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def guide():
    pyro.sample("z", dist.Normal(torch.ones(2), 1.0).to_event(1))


@pytest.mark.parametrize(("alpha", "num_particles"), CASES)
def test_the_table_is_the_exact_expectation(alpha, num_particles):
    expected = TABLE[alpha][num_particles]
    assert expected_bound(alpha, num_particles) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("alpha", "num_particles"), CASES)
def test_k_sample_bounds_have_the_exact_expectation(alpha, num_particles):
    """Within three standard errors, .001 to .014, over 300 000 / K sets of particles."""
    sets = max(400, 300_000 // num_particles)
    z = 1.0 + torch.randn(num_particles, sets, 2)
    log_w = ((z - 1) ** 2).sum(-1) / 2 - (z**2).sum(-1) / 2
    values = -PowerMean(alpha)(log_w)
    error = values.std().item() / math.sqrt(sets)
    assert error < 0.015
    assert abs(values.mean().item() - expected_bound(alpha, num_particles)) < 3 * error


@pytest.mark.parametrize("alpha", TABLE)
def test_the_limit_of_many_particles_is_minus_alpha(alpha):
    gaps = [abs(expected_bound(alpha, K) + alpha) for K in TABLE[alpha]]
    assert gaps == sorted(gaps, reverse=True)
    # A bound is off by Var / (2 K (1 - alpha)) once K is large; 0.031 for the chi bound at 5000.
    assert gaps[-1] < 0.031
    assert gaps[0] > 15 * gaps[-1]


def test_a_finite_number_of_particles_breaks_the_sandwich():
    """ELBO <= log Z <= CUBO holds for exact expectations, -1 <= 0 <= 1, and not at finite K."""
    exact_elbo, log_evidence, exact_cubo = -1.0, 0.0, 1.0
    cubo = {K: expected_bound(-1.0, K) for K in (1, 2, 3, 4, 5, 50, 500, 5000)}
    # One particle of the upper bound *is* the lower bound.
    assert cubo[1] == pytest.approx(exact_elbo, abs=1e-6)
    # Up to four particles the upper bound lies below what it is to bound,
    assert all(cubo[K] < log_evidence for K in (1, 2, 3, 4))
    # and at any number below the number that it estimates.
    assert log_evidence < cubo[5] < cubo[50] < cubo[500] < cubo[5000] < exact_cubo
    # The Renyi bound of the same order shares the failure; lower bounds stay where they belong.
    assert max(expected_bound(0.0, K) for K in (1, 2, 50, 5000)) < log_evidence


@pytest.mark.parametrize(
    ("loss", "sign", "expected"),
    [
        (Renyi(1.0, 2, 20_000), -1, -1.0),
        (IWAE(5, 8000), -1, -0.324851),
        (Renyi(2.0, 5, 8000), -1, -1.675149),
        (CUBO(2, 2, 20_000), 1, -0.471670),
        (CUBO(2, 50, 800), 1, 0.647539),
    ],
    ids=["Renyi 1", "IWAE", "Renyi 2", "CUBO K=2", "CUBO K=50"],
)
def test_the_losses_report_these_numbers(loss, sign, expected):
    """Within three standard errors of the outer particles' mean."""
    values = loss.objective(loss.draws(model, guide).log_w)
    error = values.std().item() / math.sqrt(loss.num_outer)
    assert error < 0.04
    pyro.set_rng_seed(1)
    assert abs(sign * loss.loss(model, guide) - expected) < 3 * error


def test_objectives_that_are_no_bound_do_not_call_themselves_one():
    assert ReverseKL().objective.lower_bound
    assert IWAE().objective.lower_bound
    assert Renyi(2.0).objective.lower_bound
    assert not CUBO().objective.lower_bound
    assert not PowerMean(-1.0).lower_bound


# p = N(0, 1) N(x; z, 1) at x = 1.3 and q = N(0.2, 0.9^2): two hundred thousand quantiles of q as
# particles, all exact expectations in closed form.
X, MEAN, SCALE = 1.3, 0.2, 0.9
LOG_EVIDENCE = -0.5 * math.log(4 * math.pi) - X**2 / 4


def log_expected_power(power):
    """``log E_q w^power``, a Gaussian integral: log w = a + b e + c e^2 / 2 in the noise e."""
    a = -math.log(2 * math.pi) - (MEAN**2 + (X - MEAN) ** 2) / 2
    a += 0.5 * math.log(2 * math.pi) + math.log(SCALE)
    b = (X - 2 * MEAN) * SCALE
    c = 1 - 2 * SCALE**2
    shrunk = 1 - power * c
    return power * a + (power * b) ** 2 / (2 * shrunk) - 0.5 * math.log(shrunk)


@pytest.fixture
def quantiles():
    u = (torch.arange(200_000) + 0.5) / 200_000
    noise = torch.special.ndtri(u)
    z = MEAN + SCALE * noise
    log_p = -math.log(2 * math.pi) - (z**2 + (X - z) ** 2) / 2
    return log_p + 0.5 * math.log(2 * math.pi) + math.log(SCALE) + noise**2 / 2


def test_exact_bounds_of_a_conjugate_normal_are_ordered(quantiles):
    """The evidence is enclosed, and the two upper bounds have no universal order."""
    elbo = (log_expected_power(1e-6) - log_expected_power(-1e-6)) / 2e-6
    ratio = 0.5 / SCALE**2  # the posterior is N(x / 2, 1/2)
    forward = 0.5 * (ratio + (X / 2 - MEAN) ** 2 / SCALE**2 - 1 - math.log(ratio))
    expected = {
        "alpha = 2": (-log_expected_power(-1.0), -2.9964),
        "elbo": (elbo, -1.9593),
        "alpha = 0.5": (2 * log_expected_power(0.5), -1.7941),
        "log evidence": (LOG_EVIDENCE, -1.6880),
        "cubo": (log_expected_power(2.0) / 2, -1.5580),
        "eubo": (LOG_EVIDENCE + forward, -1.5132),
    }
    assert log_expected_power(1.0) == pytest.approx(LOG_EVIDENCE, abs=1e-12)
    for exact, published in expected.values():
        assert exact == pytest.approx(published, abs=6e-5)
    exact = [value for value, _ in expected.values()]
    assert exact == sorted(exact)

    found = {
        "elbo": -PowerMean(1.0)(quantiles),
        "alpha = 0.5": -PowerMean(0.5)(quantiles),
        "log evidence": -PowerMean(0.0)(quantiles),
        "cubo": PowerMean(-1.0, sign=1)(quantiles),
        "eubo": ForwardKL()(quantiles),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(expected[name][0], abs=2e-5), name
