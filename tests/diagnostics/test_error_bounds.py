import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_klmodes.diagnostics import error_bounds
from pyro_klmodes.errors import InvalidArgument

INF = math.inf
NUM_DRAWS = 20_000


def standard_draws(dim):
    return torch.randn(NUM_DRAWS, dim)


def wasserstein_2(shift, p_scale, q_scale):
    """Of normals whose covariances are diagonal: in closed form."""
    return float((shift.square() + (p_scale - q_scale).square()).sum().sqrt())


def diagonal_log_w(x, shift, p_scale, q_scale):
    posterior, guide = Normal(shift, p_scale), Normal(torch.zeros_like(shift), q_scale)
    return (posterior.log_prob(x) - guide.log_prob(x)).sum(1)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("p_scale", [0.7, 0.9, 1.0, 1.05, 1.15])
def test_bounds_hold_on_normal_pairs(dim, shift, p_scale):
    """Guide standard normal; every element of the posterior is shifted and scaled."""
    x = standard_draws(dim)
    shifts, p_scales, q_scales = (
        torch.full((dim,), shift),
        torch.full((dim,), p_scale),
        torch.ones(dim),
    )
    bounds = error_bounds(diagonal_log_w(x, shifts, p_scales, q_scales) - 12.0, {"x": x})
    assert bounds.reason == ""
    exact = wasserstein_2(shifts, p_scales, q_scales)
    # rounding of an identical pair
    slack = 1e-9
    assert math.isfinite(bounds.wasserstein_2)
    assert bounds.wasserstein_2 >= exact - slack
    # W_1 is at least the distance of the means and at most W_2
    assert bounds.wasserstein_1 >= float(shifts.norm()) - slack
    assert (bounds.mean["x"] >= shift - slack).all()
    assert (bounds.sd["x"] >= abs(p_scale - 1) - slack).all()
    assert bounds.mean["x"].shape == (dim,)


def test_wasserstein_1_of_two_scales():
    # in one dimension W_1 of centred normals is |s_p - s_q| E|u|
    x = standard_draws(1)
    bounds = error_bounds(
        diagonal_log_w(x, torch.zeros(1), torch.tensor([1.15]), torch.ones(1)), {"x": x}
    )
    assert bounds.wasserstein_1 >= 0.15 * math.sqrt(2 / math.pi)


@pytest.mark.parametrize("correlation", [0.2, 0.4])
def test_bounds_hold_for_a_mean_field_guide(correlation):
    """Guide with the conditional scales: W_2 of normals, by the formula for covariances."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    posterior = MultivariateNormal(torch.zeros(2), covariance)
    scale = math.sqrt(1 - correlation**2)
    x = scale * standard_draws(2)
    bounds = error_bounds(posterior.log_prob(x) - Normal(0.0, scale).log_prob(x).sum(1), {"x": x})
    # eigenvalues 1 +- r against 1 - r^2 twice, in a common eigenbasis
    roots = (1 + torch.tensor([correlation, -correlation])).sqrt()
    exact = float((roots - scale).norm())
    assert exact < bounds.wasserstein_2 < INF
    assert (bounds.sd["x"] >= 1 - scale).all()
    assert (bounds.sd["x"] < INF).all()


def test_the_parts_are_the_closed_forms():
    """A standard normal guide in two dimensions, and a posterior shifted by d.

    log w = d x_1 - d^2/2: ELBO = -d^2/2, CUBO_2 = d^2/2, so that the bound is 2 d^2, twice D_2.
    With E|x|^2 = 2 and E|x|^4 = 8 (not 6, the sum of E x_i^4), s = 1 and M4 = 3.
    """
    shift = 0.3
    # all but free of sampling error: midpoints of the quantiles, in one dimension of two
    u = torch.special.ndtri((torch.arange(500, dtype=torch.float64) + 0.5) / 500)
    x = torch.cartesian_prod(u, u)
    bounds = error_bounds(shift * x[:, 0], {"a": x[:, 0], "b": x[:, 1]})
    divergence = 2 * shift**2
    chi = math.sqrt(math.expm1(divergence))
    assert bounds.divergence == pytest.approx(divergence, rel=0.02)
    assert bounds.wasserstein_1 == pytest.approx(chi * math.sqrt(2), rel=0.02)
    assert bounds.wasserstein_2 == pytest.approx(math.sqrt(2 * chi) * 8**0.25, rel=0.02)
    assert float(bounds.mean["a"]) == pytest.approx(chi, rel=0.02)
    largest = max(
        math.sqrt(1 + chi * math.sqrt(2)) - 1,
        1 - math.sqrt(max(1 - chi * math.sqrt(2) - chi**2, 0)),
    )
    assert float(bounds.sd["b"]) == pytest.approx(largest, rel=0.03)


def test_the_bound_on_the_sd_is_no_worse_than_wasserstein():
    for scale in (0.6, 0.9, 1.1, 1.2):
        x = standard_draws(1)
        log_w = diagonal_log_w(x, torch.zeros(1), torch.tensor([scale]), torch.ones(1))
        bounds = error_bounds(log_w, {"x": x})
        assert float(bounds.sd["x"]) <= bounds.wasserstein_2


def test_an_exact_guide():
    x = standard_draws(2)
    bounds = error_bounds(torch.full((NUM_DRAWS,), -3.0), {"x": x})
    assert (bounds.divergence, bounds.wasserstein_2, bounds.reason) == (0.0, 0.0, "")
    assert (bounds.sd["x"] == 0).all()


class TestRefusal:
    def assert_no_bounds(self, bounds, reason):
        assert reason in bounds.reason
        assert bounds.wasserstein_1 == bounds.wasserstein_2 == INF
        assert (bounds.mean["x"] == INF).all()
        assert (bounds.sd["x"] == INF).all()

    def test_of_heavy_tails(self):
        # k = 1 - 0.6^2 = 0.64: the second moment of the weights is infinite
        x = 0.6 * standard_draws(1)
        log_w = diagonal_log_w(x, torch.zeros(1), torch.ones(1), torch.tensor([0.6]))
        bounds = error_bounds(log_w, {"x": x})
        self.assert_no_bounds(bounds, "Pareto k-hat is 0.")
        assert bounds.divergence == INF

    def test_of_weights_of_zero(self):
        x = standard_draws(1)
        self.assert_no_bounds(error_bounds((x[:, 0] > 0).double().log(), {"x": x}), "weight zero")

    def test_of_few_draws(self):
        self.assert_no_bounds(error_bounds(torch.randn(10), {"x": torch.randn(10)}), "no tail")

    def test_of_a_divergence_beyond_numbers(self):
        # light tails (k < 1/2) but two lumps a thousand nats apart
        log_w = 1000 * (torch.arange(1000) % 2) + torch.rand(1000)
        self.assert_no_bounds(error_bounds(log_w, {"x": torch.randn(1000)}), "overflows")


@pytest.mark.parametrize(
    ("log_w", "values", "message"),
    [
        (torch.zeros(5, 2), {"x": torch.zeros(5, 2)}, r"one\s+joint log-weight per draw"),
        (torch.zeros(5), {}, "0 sites"),
        (torch.zeros(5), {"x": torch.zeros(4)}, r"'x' have shape \(4,\)"),
        (torch.tensor([0.0, math.nan]), {"x": torch.zeros(2)}, "NaN"),
    ],
)
def test_bad_input_is_refused(log_w, values, message):
    with pytest.raises(InvalidArgument, match=message):
        error_bounds(log_w, values)
