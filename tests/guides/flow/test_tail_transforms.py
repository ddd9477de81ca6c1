"""Tail transforms against closed forms, in the middle and far out, in both precisions."""

import math

import pytest
import torch
from scipy import special, stats

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.flow import StudentTailLayer, TailLayer
from pyro_klmodes.guides.flow.tail_functions import (
    exponential_to_half_normal,
    growth,
    half_normal_to_exponential,
    log_growth_slope,
    shrinkage,
)
from pyro_klmodes.guides.flow.tail_transforms import ParetoTails, StudentTails

KINDS = [ParetoTails, StudentTails]
WEIGHTS = [0.0, 1e-12, 1e-6, 0.009, 0.011, 0.3, 1.0, 2.0]


def at(kind, weight, dtype=torch.float64, negative=None):
    given = torch.tensor([weight], dtype=dtype)
    return kind(given, given if negative is None else torch.tensor([negative], dtype=dtype))


def grid(furthest, dtype=torch.float64):
    return torch.linspace(-furthest, furthest, 81, dtype=dtype).unsqueeze(-1)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0, 2.0])
def test_pareto_tails_are_the_published_formula(weight):
    z = grid(6.0)
    x, _ = at(ParetoTails, weight).to_values(z)
    formula = z.sign() / weight * (torch.special.erfc(z.abs() / math.sqrt(2)) ** -weight - 1)
    torch.testing.assert_close(x, formula, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0, 2.0])
def test_pareto_tails_make_a_generalised_pareto_distribution_of_a_normal(weight):
    z = torch.tensor([[0.5], [1.0], [3.0], [8.0], [15.0]])
    x, log_det = at(ParetoTails, weight).to_values(z)
    law = stats.genpareto(weight)
    two_sided = math.log(2) + special.log_ndtr(-z.numpy())
    torch.testing.assert_close(torch.as_tensor(law.logsf(x.numpy())), torch.as_tensor(two_sided))
    density = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    expected = law.logpdf(x.numpy()) - math.log(2)
    torch.testing.assert_close(density.squeeze(-1) - log_det, torch.as_tensor(expected[:, 0]))


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_student_tails_are_the_published_formula(weight):
    z = grid(6.0)
    x, _ = at(StudentTails, weight).to_values(z)
    formula = z.sign() * ((torch.exp(weight * z.square()) - 1) / weight).sqrt()
    torch.testing.assert_close(x, formula, rtol=1e-12, atol=1e-14)


def test_student_tails_nearly_map_normal_to_student_quantiles():
    # Wallace's factor (8 df + 1) / (8 df + 3) left out: 1 - 2 / 43 at df = 5
    levels = torch.tensor([0.6, 0.9, 0.99, 0.999]).unsqueeze(-1)
    x, _ = at(StudentTails, 1 / 5).to_values(torch.special.ndtri(levels))
    ratio = x / torch.as_tensor(stats.t(5).ppf(levels.numpy()))
    assert ratio.min() > 0.87
    assert ratio.max() < 1.0


def test_the_identity_is_the_limit_of_student_tails():
    z = grid(10.0)
    for weight, tolerance in ((0.0, 0.0), (1e-12, 1e-9)):
        x, log_det = at(StudentTails, weight).to_values(z)
        assert (x - z).abs().max() <= tolerance
        assert log_det.abs().max() <= tolerance


def test_exponential_tails_are_the_limit_of_pareto_tails():
    z = grid(10.0)
    for weight, tolerance in ((0.0, 1e-12), (1e-12, 1e-8)):
        x, _ = at(ParetoTails, weight).to_values(z)
        limit = -z.sign() * (math.log(2) + torch.special.log_ndtr(-z.abs()))
        assert (x - limit).abs().max() <= tolerance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.2, 0.5, 1.0])
def test_the_tail_index_is_one_over_the_weight(kind, weight):
    """The slope of the survival function between 1e-15 and 1e-57, on logarithmic scales."""
    z = torch.tensor([[8.0], [16.0]])
    log_x = at(kind, weight).to_values(z)[0].log().squeeze(-1)
    log_survival = torch.special.log_ndtr(-z).squeeze(-1)
    index = -(log_survival[1] - log_survival[0]) / (log_x[1] - log_x[0])
    # the logarithm in the tail of the Student form costs log(16 / 8) = 0.69 in 96
    assert abs(index * weight - 1) < (0.008 if kind is StudentTails else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_inverse_undoes_the_transform(kind, weight, dtype, tolerance):
    z = grid(30.0, dtype)
    transform = at(kind, weight, dtype, negative=weight / 3)
    x, log_det = transform.to_values(z)
    back, log_det_back = transform.to_noise(x)
    assert x.isfinite().all()
    torch.testing.assert_close(back, z, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(log_det_back, -log_det, rtol=10 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_log_determinants_are_those_of_the_jacobian(kind, weight):
    transform = at(kind, weight, negative=weight / 3)
    for function, points in (
        (transform.to_values, grid(12.0)),
        (transform.to_noise, grid(50.0)),
    ):
        points = points.requires_grad_()
        y, log_det = function(points)
        (slope,) = torch.autograd.grad(y.sum(), points)
        torch.testing.assert_close(log_det, slope.log().squeeze(-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [1e-8, 0.0099, 0.0101, 0.5, 2.0])
def test_first_and_second_derivatives_in_value_and_weight(kind, weight):
    points = torch.tensor([[-3.0], [-0.2], [0.1], [1.5], [2.5]], requires_grad=True)
    weights = torch.tensor([max(weight, 1e-5)], requires_grad=True)
    for method in ("to_values", "to_noise"):

        def function(x, w, method=method):
            return getattr(kind(w, w), method)(x)

        assert torch.autograd.gradcheck(function, (points, weights), rtol=1e-5)
        assert torch.autograd.gradgradcheck(function, (points, weights), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_has_the_derivatives_of_its_neighbours(kind):
    transform = at(kind, 0.5)
    for function in (transform.to_values, transform.to_noise):
        x = torch.tensor([[0.0], [1e-9]], requires_grad=True)
        (slope,) = torch.autograd.grad(function(x)[0].sum(), x)
        assert slope[0] > 0.5
        torch.testing.assert_close(slope[0], slope[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("furthest", [30.0, 300.0])
def test_nothing_overflows(kind, furthest, dtype):
    z = grid(furthest, dtype).requires_grad_()
    weight = torch.tensor([2.0], dtype=dtype, requires_grad=True)
    x, log_det = kind(weight, weight).to_values(z)
    back, log_det_back = kind(weight, weight).to_noise(x)
    gradients = torch.autograd.grad(
        [x.abs().log1p().sum(), log_det.sum(), back.sum(), log_det_back.sum()], [z, weight]
    )
    for tensor in (x, log_det, back, log_det_back, *gradients):
        assert tensor.isfinite().all()
    assert x[z.abs() < 50].square().isfinite().all()
    assert (x.diff(dim=0) > 0).all()


def test_growth_and_shrinkage_are_inverse_across_the_cap():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        cap = 0.4 * math.log(torch.finfo(dtype).max)
        t = torch.tensor([0.0, 1e-20, 0.0099, 0.0101, 3.0, cap, cap + 1, 2 * cap], dtype=dtype)
        y = t * growth(t)
        torch.testing.assert_close(y * shrinkage(y), t, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(log_growth_slope(t), t.clamp(max=torch.tensor(cap, dtype=dtype)))


def test_the_half_normal_quantile_to_the_last_digits():
    a = torch.logspace(-12, 6, 60)
    z = exponential_to_half_normal(a)
    torch.testing.assert_close(half_normal_to_exponential(z), a, rtol=1e-14, atol=1e-15)
    reference = -special.ndtri_exp((-a - math.log(2)).numpy())
    # SciPy's own values reproduce a to 1e-12 only
    torch.testing.assert_close(z, torch.as_tensor(reference), rtol=1e-12, atol=2e-16)


def test_weights_of_every_coordinate_and_side():
    layer = TailLayer(weights=(0.1, 0.2), negative=0.3, learn=False)
    transform = layer.build(torch.zeros(2)).transform()
    assert transform.positive.tolist() == [0.1, 0.2]
    assert transform.negative.tolist() == [0.3, 0.3]


def test_learned_weights_are_parameters_and_fixed_ones_are_not():
    assert len(list(StudentTailLayer().build(torch.zeros(2)).parameters())) == 2
    assert not list(StudentTailLayer(learn=False).build(torch.zeros(2)).parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": -0.1}, "weights has the tail weight -0.1"),
        ({"weights": 0.1, "negative": (0.2, math.nan)}, "negative has the tail weight nan"),
        ({"weights": 0.0}, "tail weight of zero"),
    ],
)
def test_impossible_weights_are_refused(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        TailLayer(**arguments)


def test_weights_for_other_coordinates_are_refused():
    with pytest.raises(InvalidArgument, match="2 tail weights for 3 coordinates"):
        TailLayer(weights=(0.1, 0.2)).build(torch.zeros(3))
