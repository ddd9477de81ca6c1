"""The named f-functions, and the divergence they make."""

import math

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators.doubly import path_credit
from pyro_klmodes.objectives import FDivergence
from pyro_klmodes.objectives import f_functions as f

#: f, and its universal weight f''(r) r^2 (Wan, Li and Hayashi, 2020)
FUNCTIONS = {
    "forward_kl": (f.forward_kl, lambda r: r),
    "reverse_kl": (f.reverse_kl, torch.ones_like),
    "chi_square": (f.chi_square, lambda r: 2 * r**2),
    "hellinger": (f.hellinger, lambda r: r.sqrt() / 4),
    "jensen_shannon": (f.jensen_shannon, lambda r: r / (2 * (1 + r))),
    "alpha_-1": (f.alpha_divergence(-1.0), lambda r: r**2),
    "alpha_0.3": (f.alpha_divergence(0.3), lambda r: r**0.7),
    "alpha_2": (f.alpha_divergence(2.0), lambda r: 1 / r),
}
NAMED = {**FUNCTIONS, "total_variation": (f.total_variation, torch.zeros_like)}

#: f in terms of r itself
DEFINITIONS = {
    "forward_kl": lambda r: r * r.log(),
    "reverse_kl": lambda r: -r.log(),
    "chi_square": lambda r: r**2 - 1,
    "hellinger": lambda r: 1 - r.sqrt(),
    "jensen_shannon": lambda r: 0.5 * (r * r.log() - (1 + r) * ((1 + r) / 2).log()),
    "total_variation": lambda r: 0.5 * (r - 1).abs(),
    "alpha_-1": lambda r: (r**2 - 1) / 2,
    "alpha_0.3": lambda r: (r**0.7 - 1) / (0.3 * -0.7),
    "alpha_2": lambda r: (1 / r - 1) / 2,
}


@pytest.mark.parametrize("name", NAMED)
def test_zero_at_one(name):
    assert NAMED[name][0](torch.zeros(())).item() == 0.0


@pytest.mark.parametrize("name", NAMED)
def test_the_definition(name):
    t = torch.linspace(-8, 4, 101)
    torch.testing.assert_close(NAMED[name][0](t), DEFINITIONS[name](t.exp()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_convex_in_the_ratio(name):
    """Every chord lies above: strictly, but for total variation on one side of its kink."""
    r = torch.linspace(0.01, 6.0, 60)
    left, right = torch.meshgrid(r, r, indexing="ij")
    middle = NAMED[name][0](((left + right) / 2).log())
    chord = (NAMED[name][0](left.log()) + NAMED[name][0](right.log())) / 2
    apart = left != right
    if name == "total_variation":
        apart &= (left - 1) * (right - 1) < 0
    assert (chord - middle)[apart].min() > 0
    assert (chord - middle).min() > -1e-14


@pytest.mark.parametrize("name", NAMED)
def test_the_universal_weight(name):
    """``f''(r) r^2 = d^2 f / dt^2 - df / dt`` at ``t = log r``."""
    function, weight = NAMED[name]
    t = torch.linspace(-5, 4, 90)
    first = torch.func.grad(function)
    second = torch.func.grad(first)
    r = t.exp()
    found = torch.func.vmap(second)(t) - torch.func.vmap(first)(t)
    torch.testing.assert_close(found, weight(r), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_path_only_credit_is_minus_the_universal_weight(name):
    function, weight = FUNCTIONS[name]
    log_z = -0.8
    log_w = log_z + torch.randn(5, 30)
    credit = path_credit(FDivergence(function, log_evidence=log_z), log_w)
    expected = -weight((log_w - log_z).exp()) / 5
    torch.testing.assert_close(credit, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_extreme_ratios(name):
    """Weight zero gives f(0), finite or not; the gradient is finite wherever the value is."""
    t = torch.tensor([-math.inf, -1e4, -745.0], requires_grad=True)
    value = NAMED[name][0](t)
    at_zero = {
        "forward_kl": 0.0,
        "reverse_kl": math.inf,
        "chi_square": -1.0,
        "hellinger": 1.0,
        "jensen_shannon": 0.5 * math.log(2),
        "total_variation": 0.5,
        "alpha_-1": -0.5,
        "alpha_0.3": 1 / 0.21,
        "alpha_2": math.inf,
    }[name]
    assert value[0].item() == pytest.approx(at_zero, abs=1e-12)
    if math.isfinite(at_zero):
        (gradient,) = torch.autograd.grad(value.sum(), t)
        torch.testing.assert_close(gradient, torch.zeros(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_the_divergence_is_not_negative_and_zero_for_equal_weights_only(name):
    objective = FDivergence(NAMED[name][0])
    log_w = torch.randn(6, 200)
    assert (objective(log_w) > 0).all()
    torch.testing.assert_close(
        objective(torch.full((6, 1), 3.0)), torch.zeros(1), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("name", NAMED)
def test_a_known_evidence_moves_with_the_weights(name):
    log_w = torch.randn(4, 10)
    here = FDivergence(NAMED[name][0], log_evidence=0.2)(log_w)
    there = FDivergence(NAMED[name][0], log_evidence=50.2)(log_w + 50)
    torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-12)


def test_exact_divergences_of_two_points():
    """With every point as often as q has it, the estimate is the divergence."""
    log_w = torch.tensor([0.2 / 0.6] * 3 + [0.8 / 0.4] * 2).log()  # q = (.6, .4), p = (.2, .8)
    exact = {
        "forward_kl": 0.2 * math.log(1 / 3) + 0.8 * math.log(2),
        "reverse_kl": 0.6 * math.log(3) + 0.4 * math.log(0.5),
        "chi_square": 0.16 / 0.6 + 0.16 / 0.4,
        "hellinger": 1 - math.sqrt(0.12) - math.sqrt(0.32),
        "jensen_shannon": 0.5
        * (
            0.2 * math.log(0.5)
            + 0.8 * math.log(4 / 3)
            + 0.6 * math.log(1.5)
            + 0.4 * math.log(2 / 3)
        ),
        "total_variation": 0.4,
    }
    for name, expected in exact.items():
        for log_evidence in (None, 0.0):
            value = FDivergence(NAMED[name][0], log_evidence)(log_w)
            assert value.item() == pytest.approx(expected, abs=1e-12), name


def test_alpha_divergences_join_the_named_ones():
    log_w = torch.randn(9, 50)

    def value(function):
        return FDivergence(function)(log_w)

    def agree(alpha, expected, tolerance):
        found = value(f.alpha_divergence(alpha))
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)

    agree(-1.0, value(f.chi_square) / 2, 1e-12)
    agree(0.5, 4 * value(f.hellinger), 1e-12)
    agree(0.0, value(f.forward_kl), 0)
    agree(1.0, value(f.reverse_kl), 0)
    for side in (-1e-6, 1e-6):
        agree(side, value(f.forward_kl), 1e-5)
        agree(1.0 + side, value(f.reverse_kl), 1e-5)


def test_only_total_variation_has_a_kink():
    assert [name for name, (function, _) in NAMED.items() if not function.smooth] == [
        "total_variation"
    ]
    assert FDivergence(lambda t: torch.expm1(2 * t)).smooth


@pytest.mark.parametrize(
    "function", ["chi_square", lambda t: t.sum(), lambda t: t.log(), lambda t: 1.0]
)
def test_what_is_not_an_elementwise_function_is_refused(function):
    with pytest.raises(InvalidArgument, match="log-ratio"):
        FDivergence(function)
