"""The power means: order, limits, and what particles do to their expectation."""

import math

import pytest
import torch

from pyro_klmodes.objectives import PowerMean

ALPHAS = [-math.inf, -3.0, -1.0, -0.2, 0.0, 0.3, 0.99, 1.0, 1.01, 2.0, 5.0, math.inf]


@pytest.fixture
def log_w():
    return 2.0 * torch.randn(7, 40)


def bound(alpha, log_w):
    return -PowerMean(alpha)(log_w)


def test_every_set_of_particles_is_ordered_in_alpha(log_w):
    values = torch.stack([bound(alpha, log_w) for alpha in ALPHAS])
    assert (values.diff(dim=0) < 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_particle_is_the_evidence_lower_bound(alpha):
    log_w = torch.tensor([[-700.0, -1.5, 0.0, 900.0]])
    torch.testing.assert_close(bound(alpha, log_w), log_w[0], rtol=1e-12, atol=0)
    credit = PowerMean(alpha).credit(log_w)
    torch.testing.assert_close(credit, torch.full((1, 4), -1.0), rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [a for a in ALPHAS if math.isfinite(a) and a != 1.0])
def test_the_definition(alpha, log_w):
    expected = (log_w * (1 - alpha)).exp().mean(0).log() / (1 - alpha)
    torch.testing.assert_close(bound(alpha, log_w), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_sign_turns_everything_around(sign, log_w):
    raised, turned = PowerMean(-1.0), PowerMean(-1.0, sign=sign)
    for part in ("__call__", "credit", "curvature"):
        expected = -sign * getattr(raised, part)(log_w)
        torch.testing.assert_close(getattr(turned, part)(log_w), expected, rtol=0, atol=0)


@pytest.mark.parametrize("side", [-1, 1])
def test_continuous_through_the_evidence_lower_bound(side, log_w):
    """``L_{1 +- e} = L_1 -+ e Var(log w) / 2 + O(e^2)``, and credits follow."""
    slope = -0.5 * log_w.var(0, correction=0)
    for e in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-21):
        near = PowerMean(1.0 + side * e)
        expected = log_w.mean(0) + side * e * slope
        # The next term has the third cumulant over six; 1e-13 is rounding.
        torch.testing.assert_close(-near(log_w), expected, rtol=0, atol=20 * e**2 + 1e-13)
        centred = log_w - log_w.mean(0)
        credit = -(1 - side * e * centred) / 7
        torch.testing.assert_close(near.credit(log_w), credit, rtol=0, atol=20 * e**2 + 1e-13)
        torch.testing.assert_close(
            near.curvature(log_w),
            torch.full_like(log_w, side * e * 6 / 49),
            rtol=0,
            atol=20 * e**2 + 1e-16,
        )


@pytest.mark.parametrize("alpha", [-1e3, -1e6, -1e21, -1e300, 1e3, 1e6, 1e21, 1e300])
def test_large_orders_go_to_the_extreme_weights(alpha, log_w):
    limit = PowerMean(math.copysign(math.inf, alpha))
    extreme = log_w.amax(0) if alpha < 0 else log_w.amin(0)
    torch.testing.assert_close(-limit(log_w), extreme, rtol=0, atol=0)
    # One of seven equal terms is the mean divided by seven.
    tolerance = math.log(7) / (abs(alpha) - 1) + 1e-13
    torch.testing.assert_close(bound(alpha, log_w), extreme, rtol=0, atol=tolerance)
    if abs(alpha) >= 1e6:
        torch.testing.assert_close(
            PowerMean(alpha).credit(log_w), limit.credit(log_w), rtol=0, atol=1e-12
        )


def test_the_smallest_and_the_largest_weight_take_all_the_credit(log_w):
    for alpha, index in ((-math.inf, log_w.argmax(0)), (math.inf, log_w.argmin(0))):
        expected = -torch.nn.functional.one_hot(index, 7).T.to(log_w)
        torch.testing.assert_close(PowerMean(alpha).credit(log_w), expected, rtol=0, atol=0)


#: two points, and the weights p/q on them; log-evidence 0
Q = torch.tensor([0.6, 0.4], dtype=torch.float64)
P = torch.tensor([0.2, 0.8], dtype=torch.float64)


def expected_bound(alpha, num_particles):
    """``E L_alpha`` over the number of particles at the second point, which is binomial."""
    ones = torch.arange(num_particles + 1)
    counts = torch.distributions.Binomial(num_particles, Q[1]).log_prob(ones.double()).exp()
    log_w = (P / Q).log()
    sets = torch.where(torch.arange(num_particles).unsqueeze(1) < ones, log_w[1], log_w[0])
    return float((counts * bound(alpha, sets)).sum())


def exact_bound(alpha):
    log_w = (P / Q).log()
    if alpha == 1.0:
        return float((Q * log_w).sum())
    return float((Q * ((1 - alpha) * log_w).exp()).sum().log() / (1 - alpha))


@pytest.mark.parametrize("alpha", [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0])
def test_more_particles_move_the_expectation_one_way(alpha):
    """Up below alpha = 1 and down above, to the exact bound (Li and Turner, 2016, theorem 2)."""
    values = torch.tensor([expected_bound(alpha, K) for K in (1, 2, 3, 5, 10, 30, 100, 300)])
    elbo, limit = exact_bound(1.0), exact_bound(alpha)
    assert values[0].item() == pytest.approx(elbo, abs=1e-12)
    direction = math.copysign(1.0, 1.0 - alpha)
    if alpha == 1.0:
        torch.testing.assert_close(values, torch.full((8,), elbo), rtol=0, atol=1e-10)
        return
    assert (direction * values.diff() > 0).all()
    assert direction * (limit - values[-1].item()) > 0
    assert abs(values[-1].item() - limit) < 0.01 * abs(elbo - limit)


def test_a_finite_number_of_particles_makes_the_chi_upper_bound_no_bound():
    cubo = exact_bound(-1.0)
    assert cubo == pytest.approx(0.5 * math.log(0.04 / 0.6 + 0.64 / 0.4), abs=1e-12)
    assert expected_bound(-1.0, 2) < 0.0 < expected_bound(-1.0, 10) < cubo


def test_the_gap_of_the_importance_weighted_bound_is_half_the_variance_over_k():
    """``K (log Z - L_K) -> Var(w / Z) / 2`` (Burda, Grosse and Salakhutdinov, 2016; Daudel et
    al., 2023, for other orders: the relative variance of ``w^(1 - alpha)`` over ``1 - alpha``)."""
    for alpha in (-1.0, 0.0, 0.5, 2.0):
        power = (P / Q) ** (1 - alpha)
        mean = (Q * power).sum()
        rate = float((Q * (power / mean - 1) ** 2).sum()) / (2 * (1 - alpha))
        gap = 2000 * (exact_bound(alpha) - expected_bound(alpha, 2000))
        assert gap == pytest.approx(rate, rel=2e-3)
