"""Student-t targets: quantiles and moments against other integrals."""

import math

import pytest
import torch
from pyro import poutine
from scipy import integrate, special, stats

from models import heavy_tail

LEVELS = torch.tensor([1e-6, 0.01, 0.3, 0.5, 0.8, 0.99], dtype=torch.float64)


@pytest.mark.parametrize("degrees", [1.0, 2.0, 5.0])
def test_log_density_is_the_sum_of_student_t_densities(degrees):
    trace = poutine.trace(heavy_tail.model).get_trace(degrees, 4)
    x = trace.nodes["x"]["value"].numpy()
    assert x.shape == (4,)
    expected = stats.t.logpdf(x, degrees).sum()
    assert trace.log_prob_sum().item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("degrees", [1.0, 2.0, 5.0])
def test_nuisance_log_density_has_a_unit_normal_around_the_last_one(degrees):
    trace = poutine.trace(heavy_tail.tail_nuisance_model).get_trace(degrees, 4)
    x, y = (trace.nodes[site]["value"].numpy() for site in ("x", "y"))
    assert x.shape == (3,)
    expected = stats.t.logpdf(x, degrees).sum() + stats.norm.logpdf(y, x[-1], 1)
    assert trace.log_prob_sum().item() == pytest.approx(expected, abs=1e-10)


def test_cauchy_quantiles_are_tangents():
    quantiles = heavy_tail.cauchy_problem().quantiles["x"](LEVELS)
    assert quantiles.shape == (6, 5)
    expected = (math.pi * (LEVELS - 0.5)).tan()
    torch.testing.assert_close(quantiles, expected[:, None].expand(6, 5), rtol=1e-9, atol=1e-12)


def test_nuisance_quantiles_agree_with_the_voigt_profile():
    # A Cauchy variable plus a normal one has the Voigt density; integrated over y = tan(angle).
    quantiles = heavy_tail.tail_nuisance_problem().quantiles["y"](LEVELS)
    assert quantiles.shape == (6,)

    def integrand(angle):
        return special.voigt_profile(math.tan(angle), 1, 1) / math.cos(angle) ** 2

    for level, quantile in zip(LEVELS.tolist(), quantiles.tolist(), strict=True):
        mass, _ = integrate.quad(integrand, -math.pi / 2, math.atan(quantile), epsabs=1e-13)
        assert mass == pytest.approx(level, rel=1e-7)


def test_nuisance_quantiles_agree_with_another_order_of_integration():
    # F(y) = E_x[Phi(y - x)] over x = tan(angle), where the code integrates over the noise.
    degrees = 3.0

    def integrand(angle, y):
        x = math.tan(angle)
        return stats.t.pdf(x, degrees) * stats.norm.cdf(y - x) / math.cos(angle) ** 2

    for level in (0.001, 0.2, 0.9):
        y = heavy_tail.nuisance_quantile([level], degrees).item()
        half = math.pi / 2
        mass, _ = integrate.quad(integrand, -half, half, args=(y,), limit=500, epsabs=1e-12)
        assert mass == pytest.approx(level, abs=1e-10)


def test_moments_are_those_of_scipy_where_they_exist():
    case = heavy_tail.tail_nuisance_problem(degrees=5.0)
    torch.testing.assert_close(case.reference["x"].sd, torch.full((4,), stats.t.std(5.0)))
    assert case.reference["y"].sd.item() == pytest.approx(math.sqrt(stats.t.var(5.0) + 1))
    assert heavy_tail.problem(5.0, 2).reference["x"].sd[0].item() == stats.t.std(5.0)


@pytest.mark.parametrize("factory", [heavy_tail.problem, heavy_tail.tail_nuisance_problem])
def test_two_degrees_and_less_have_quantiles_but_no_moments(factory):
    assert factory(degrees=2.01).reference
    for degrees in (0.5, 1.0, 2.0):
        case = factory(degrees=degrees)
        assert not case.reference
        assert "x" in case.quantiles


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (heavy_tail.problem, (0.0, 3), "degrees must be positive, got 0.0"),
        (heavy_tail.problem, (1.0, 0), "dimension must be at least 1, got 0"),
        (heavy_tail.tail_nuisance_problem, (1.0, 1), "dimension must be at least 2, got 1"),
    ],
)
def test_bad_arguments_are_refused(factory, arguments, message):
    with pytest.raises(ValueError, match=message):
        factory(*arguments)
