"""Nodes of every family have its expected statistics, and give back coefficients."""

import pytest
import torch
from torch.distributions import constraints

from pyro_klmodes.guides import site_families as families
from pyro_klmodes.inference.cavi.rules.cubature import gauss_hermite, quasi_random, simplex
from pyro_klmodes.inference.cavi.rules.discrete import NumbersRule, StatesRule
from pyro_klmodes.inference.cavi.rules.gamma import GammaRule, digamma_minus_log
from pyro_klmodes.inference.cavi.rules.normal import NormalRule
from pyro_klmodes.inference.cavi.rules.simplices import BetaRule, DirichletRule
from pyro_klmodes.inference.cavi.rules.wishart import WishartRule


def positive_definite(*shape):
    root = torch.randn(*shape, shape[-1])
    return root @ root.mT + torch.eye(shape[-1])


def normal_rule(family, shape, together):
    real = constraints.independent(constraints.real, 1)
    return NormalRule(family, real, len(shape) - 1, torch.Size(shape), together, quadratic=True)


def cases():
    """Rule, parameters, and natural parameters of some other member, for every family."""
    gamma, beta, dirichlet = families.Gamma(), families.Beta(), families.Dirichlet()
    size = torch.tensor([0.3, 2.0, 40.0, 1e4])
    return {
        "gamma": (
            GammaRule(gamma),
            {"concentration": size, "rate": torch.tensor([3.0, 0.1, 20.0, 5e3])},
            (torch.rand(4), -torch.rand(4)),
            constraints.positive,
        ),
        "beta": (
            BetaRule(beta),
            {"concentration1": size, "concentration0": torch.tensor([0.5, 1.0, 3.0, 2e4])},
            (torch.rand(4), torch.rand(4)),
            constraints.unit_interval,
        ),
        "dirichlet": (
            DirichletRule(dirichlet),
            {"concentration": torch.tensor([[0.2, 0.5, 0.1], [3.0, 1.0, 40.0]])},
            (torch.rand(2, 3),),
            constraints.simplex,
        ),
        "dirichlet of two": (
            DirichletRule(dirichlet),
            {"concentration": torch.tensor([[0.2, 7.0]])},
            (torch.rand(1, 2),),
            constraints.simplex,
        ),
        "wishart": (
            WishartRule(families.Wishart()),
            {
                "df": torch.tensor([2.5, 900.0]),
                "scale_tril": torch.linalg.cholesky(positive_definite(2, 3)),
            },
            (torch.rand(2), -positive_definite(2, 3)),
            constraints.positive_definite,
        ),
        "normal": (
            normal_rule(families.Normal(), (2, 3), ()),
            {"loc": torch.randn(2, 3), "scale": torch.rand(2, 3) + 0.1},
            (torch.randn(2, 3), -torch.rand(2, 3)),
            constraints.real_vector,
        ),
        "multivariate normal": (
            normal_rule(families.MultivariateNormal(), (2, 3), ()),
            {
                "loc": torch.randn(2, 3),
                "scale_tril": torch.linalg.cholesky(positive_definite(2, 3)),
            },
            (torch.randn(2, 3), -positive_definite(2, 3)),
            constraints.real_vector,
        ),
    }


def statistics(rule, values, support):
    parts = [rule.family.sufficient_statistics(v, support) for v in values]
    return [torch.stack(t) for t in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", sorted(cases()))
def test_nodes_have_the_expected_statistics(name):
    rule, params, _, support = cases()[name]
    nodes = rule.nodes(rule.points(params))
    found = statistics(rule, nodes.values, support)
    for t, expected in zip(found, rule.family.mean_parameters(params), strict=True):
        weights = nodes.weights.reshape(-1, *[1] * (t.dim() - 1))
        mean = (weights * t).sum(0)
        assert torch.allclose(mean, expected, rtol=1e-11, atol=1e-11), (mean, expected)


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_full_step_gives_the_coefficients_of_an_affine_function(name):
    rule, params, other, support = cases()[name]
    points = rule.points(params).requires_grad_()
    nodes = rule.nodes(points)
    t = statistics(rule, nodes.values, support)
    f = rule.family.inner(other, tuple(t))
    mean = (nodes.weights.reshape(-1, *[1] * (f.dim() - 1)) * f).sum()
    (gradient,) = torch.autograd.grad(mean, points)
    new = rule.step(params, points.detach(), gradient, 1.0)
    got = rule.family.natural(new)
    for a, b in zip(got, other, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9), (a, b)
    half = rule.family.natural(rule.step(params, points.detach(), gradient, 0.5))
    for a, b, c in zip(half, rule.family.natural(params), other, strict=True):
        assert torch.allclose(a, 0.5 * (b + c), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted(cases()))
def test_nodes_are_twice_differentiable_functions_of_the_parameters(name):
    rule, params, _, support = cases()[name]
    names = sorted(params)

    def lower(values):
        here = dict(zip(names, values, strict=True))
        return {n: v.tril() if n == "scale_tril" else v for n, v in here.items()}

    def means(*values):
        here = lower(values)
        nodes = rule.nodes(rule.points(here))
        (t, *_) = statistics(rule, nodes.values, support)
        return (nodes.weights.reshape(-1, *[1] * (t.dim() - 1)) * t).sum(0)

    def expected(*values):
        return rule.family.mean_parameters(lower(values))[0]

    weights = torch.randn(means(*(params[n] for n in names)).shape)
    values = tuple(params[n] for n in names)
    ours, theirs = (
        torch.autograd.functional.hessian(lambda *v, f=f: (weights * f(*v)).sum(), values)
        for f in (means, expected)
    )
    for row, other in zip(ours, theirs, strict=True):
        for a, b in zip(row, other, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-7 * (1 + b.abs().max()))


def test_entropies_are_those_of_the_distributions():
    for name, (rule, params, _, support) in cases().items():
        event_dim = 2 if name == "wishart" else 0 if name in ("gamma", "beta") else 1
        q = rule.family.distribution(params, support, event_dim)
        if name == "wishart":
            q = torch.distributions.Wishart(params["df"][1:], scale_tril=params["scale_tril"][1:])
            assert torch.allclose(rule.entropy(params)[1:], q.entropy(), rtol=1e-9)
            continue
        expected = q.entropy()
        got = rule.entropy(params)
        got = got.sum(-1) if got.dim() > expected.dim() else got
        assert torch.allclose(got, expected, rtol=1e-8, atol=1e-8), name


def test_states_weigh_as_their_probabilities():
    logits = torch.randn(4, 3)
    nodes = StatesRule(families.Categorical()).nodes(
        StatesRule(families.Categorical()).points({"logits": logits})
    )
    assert nodes.values.shape == nodes.weights.shape == (3, 4)
    assert torch.allclose(nodes.weights, logits.softmax(-1).T)
    binary = StatesRule(families.Bernoulli())
    points = binary.points({"logits": logits})
    assert torch.allclose(points.sum(0), torch.ones(4, 3))
    potentials = torch.randn(2, 4, 3)
    new = binary.step({"logits": logits}, points, potentials, 1.0)
    assert torch.equal(new["logits"], potentials[1] - potentials[0])


def test_numbers_have_their_mean_as_a_third_value():
    rule = NumbersRule(families.Bernoulli())
    nodes = rule.nodes(rule.points({"logits": torch.tensor([0.0, 1.0])}))
    expected = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.7310585786]])
    assert torch.allclose(nodes.values, expected)
    assert nodes.number
    assert len(nodes.weights) == 2


@pytest.mark.parametrize("dim", [1, 2, 5, 30])
def test_corners_of_a_simplex_are_exact_for_quadratics(dim):
    x = simplex(dim)
    assert x.shape == (dim + 1, dim)
    assert x.mean(0).abs().max() < 1e-14
    assert torch.allclose(x.T @ x / (dim + 1), torch.eye(dim), atol=1e-13)


def test_gauss_hermite_and_quasi_random_points():
    x, w = gauss_hermite(2, 6)
    assert float((w * x[:, 0] ** 4 * x[:, 1] ** 6).sum()) == pytest.approx(45.0)
    z = quasi_random(3, 512)
    assert torch.allclose(z.T @ z / 512, torch.eye(3))
    assert torch.equal(z, quasi_random(3, 512))
    # E cos(a' z) = exp(-|a|^2 / 2)
    a = torch.tensor([0.5, 0.3, -0.8])
    assert abs((z @ a).cos().mean() - (-0.5 * a @ a).exp()) < 0.01
    with pytest.raises(ValueError, match="covariance one"):
        quasi_random(10, 12)


def test_digamma_minus_log_has_no_cancellation():
    from scipy.special import digamma

    a = torch.tensor([0.01, 1.0, 14.9, 15.1, 200.0])
    expected = torch.as_tensor(digamma(a.numpy())) - a.log()
    assert torch.allclose(digamma_minus_log(a), expected, rtol=1e-12)
    large = torch.tensor([1e12])  # -1/(2a) - 1/(12 a^2)
    assert torch.allclose(digamma_minus_log(large), -0.5 / large, rtol=1e-12)
