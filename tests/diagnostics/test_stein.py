"""The Stein discrepancy against closed forms, its test under q = p and against alternatives."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_klmodes.diagnostics.stein import stein_discrepancy, stein_test
from pyro_klmodes.errors import InvalidArgument

FIXED = {"scale": torch.ones(1), "lengthscale": 1.3}


def rbf_closed_form(m, s, h):
    """E k_p over two draws of N(m, s^2) against p = N(0, 1): Gaussian integrals by hand."""
    shrunk = 2 * s**2 * h**2 / (h**2 + 2 * s**2)  # variance of x - y under the kernel
    inside = m**2 + s**2 / 2 - shrunk / 4 - shrunk / h**2 + 1 / h**2 - shrunk / h**4
    return h / math.sqrt(h**2 + 2 * s**2) * inside


def nodes(m, s, count=80):
    """Gauss-Hermite nodes of N(m, s^2) with log-weights: draws that make averages exact."""
    at, weight = np.polynomial.hermite_e.hermegauss(count)
    keep = weight > 1e-60
    return m + s * torch.tensor(at[keep])[:, None], torch.tensor(weight[keep]).log()


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.5), (-1.0, 1.6)])
def test_the_rbf_discrepancy_has_its_closed_form(m, s):
    x, log_w = nodes(m, s)
    found = stein_discrepancy(x, -x, log_w=log_w, kernel="rbf", statistic="v", **FIXED)
    assert found == pytest.approx(rbf_closed_form(m, s, 1.3), abs=1e-9)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_the_stein_kernel_is_the_derivative_it_should_be(kernel):
    """Against autograd, in three dimensions."""
    x, y, s, t = torch.randn(4, 3)
    x.requires_grad_()
    y.requires_grad_()
    squared = ((x - y) ** 2).sum() / 1.3**2
    k = (1 + squared) ** -0.5 if kernel == "imq" else (-squared / 2).exp()
    kx, ky = torch.autograd.grad(k, (x, y), create_graph=True)
    cross = sum(torch.autograd.grad(kx[i], y, retain_graph=True)[0][i] for i in range(3))
    expected = (s @ t) * k + s @ ky + t @ kx + cross
    found = stein_discrepancy(
        torch.stack([x, y]),
        torch.stack([s, t]),
        kernel=kernel,
        scale=torch.ones(3),
        lengthscale=1.3,
    )
    assert found == pytest.approx(expected.item(), rel=1e-10)


def test_imq_vanishes_at_the_target_and_only_there():
    x, log_w = nodes(0.0, 1.0)
    assert abs(stein_discrepancy(x, -x, log_w=log_w, statistic="v", **FIXED)) < 1e-6
    x, log_w = nodes(0.3, 1.0)
    assert stein_discrepancy(x, -x, log_w=log_w, statistic="v", **FIXED) > 0.01


def test_the_u_statistic_is_unbiased():
    """Mean of 300 estimates from 60 draws, within three standard errors of the closed form."""
    found = []
    for _ in range(300):
        x = 0.4 + 0.8 * torch.randn(60, 1)
        found.append(stein_discrepancy(x, -x, kernel="rbf", **FIXED))
    error = np.std(found, ddof=1) / math.sqrt(300)
    assert abs(np.mean(found) - rbf_closed_form(0.4, 0.8, 1.3)) < 3 * error
    assert rbf_closed_form(0.4, 0.8, 1.3) > 30 * error


@pytest.mark.parametrize("dimension", [1, 4])
def test_p_values_are_uniform_at_the_target(dimension):
    """Kolmogorov-Smirnov over 300 repetitions of 80 draws."""
    found = []
    for seed in range(300):
        x = torch.randn(80, dimension)
        found.append(stein_test(x, -x, num_bootstrap=199, seed=seed).p_value)
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("shift", "width"), [(0.4, 1.0), (0.0, 0.6)])
def test_a_shift_and_a_narrow_guide_are_found(shift, width):
    rejected = 0
    for seed in range(50):
        x = shift + width * torch.randn(150, 2)
        rejected += stein_test(x, -x, num_bootstrap=199, seed=seed).p_value <= 0.05
    assert rejected >= 48


def test_weights_turn_draws_of_the_guide_into_draws_of_the_target():
    """The weighted test holds its level; leaving the weights out is found."""
    p_values, unweighted = [], []
    for seed in range(200):
        x = 0.3 + 1.2 * torch.randn(150, 1)
        log_w = -(x**2) / 2 + ((x - 0.3) / 1.2) ** 2 / 2
        p_values.append(stein_test(x, -x, log_w=log_w[:, 0], num_bootstrap=199, seed=seed).p_value)
        unweighted.append(stein_test(x, -x, num_bootstrap=199, seed=seed).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(unweighted) <= 0.05) > 0.5


def test_equal_weights_are_no_weights():
    x = torch.randn(40, 3)
    for statistic in ("u", "v"):
        assert stein_discrepancy(
            x, -x, log_w=torch.full((40,), 7.0), statistic=statistic
        ) == pytest.approx(stein_discrepancy(x, -x, statistic=statistic), rel=1e-9)


def test_units_do_not_matter():
    x = torch.randn(50, 2)
    unit = torch.tensor([1e-3, 1e4])
    assert stein_discrepancy(x * unit, -x / unit) == pytest.approx(
        stein_discrepancy(x, -x), rel=1e-9
    )


def test_it_is_blind_to_the_masses_of_far_modes():
    """p has masses (.5, .5) at -10 and 10, q (.9, .1): not found; a shift within a mode is."""

    def score(x):
        return -(x - 10 * x.sign())

    centre = torch.where(torch.arange(400) < 360, -10.0, 10.0)[:, None]
    x = centre + torch.randn(400, 1)
    assert stein_test(x, score(x)).p_value > 0.2
    x = x + 0.5
    assert stein_test(x, score(x)).p_value < 0.01


def test_the_test_leaves_the_global_generator_alone():
    x = torch.randn(20, 1)
    before = torch.get_rng_state()
    assert stein_test(x, -x, seed=3).p_value == stein_test(x, -x, seed=3).p_value
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("draws", "scores", "options", "message"),
    [
        (torch.zeros(5), torch.zeros(5), {}, "draws must be a tensor of shape"),
        (torch.zeros(5, 0), torch.zeros(5, 0), {}, "draws has no columns"),
        (torch.zeros(1, 2), torch.zeros(1, 2), {}, "at least 2"),
        (torch.randn(5, 2), torch.randn(4, 2), {}, "must have one shape"),
        (torch.full((5, 2), math.nan), torch.randn(5, 2), {}, "draws: 5 of 5 draws are not finite"),
        (torch.ones(5, 2), torch.randn(5, 2), {}, "do not vary in coordinate 0"),
        (torch.randn(5, 2), torch.randn(5, 2), {"kernel": "x"}, "kernel='x'"),
        (torch.randn(5, 2), torch.randn(5, 2), {"statistic": "x"}, "statistic='x'"),
        (torch.randn(5, 2), torch.randn(5, 2), {"lengthscale": 0.0}, "lengthscale=0.0"),
        (torch.randn(5, 2), torch.randn(5, 2), {"scale": torch.ones(3)}, "scale must be 2"),
        (torch.randn(5, 2), torch.randn(5, 2), {"log_w": torch.zeros(4)}, "log_w must have shape"),
        (
            torch.randn(5, 2),
            torch.randn(5, 2),
            {"log_w": torch.full((5,), -math.inf)},
            "all weights are zero",
        ),
    ],
)
def test_bad_input_is_named(draws, scores, options, message):
    with pytest.raises(InvalidArgument, match=message):
        stein_discrepancy(draws, scores, **options)
