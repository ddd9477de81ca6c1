"""Nodes of joint factors have the moments of draws, and give back joint coefficients."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import constraints

from pyro_klmodes.guides.block_families import JointNormal, JointStates, NormalGamma, NormalWishart
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.inference.cavi.rules.joint_normal import JointNormalRule
from pyro_klmodes.inference.cavi.rules.joint_states import JointStatesRule
from pyro_klmodes.inference.cavi.rules.normal_wishart import NormalWishartRule
from pyro_klmodes.inference.cavi.rules.tree import eliminated, factors, precision_of


def latent(name, support, batch=(), event=()):
    """A site in the plates that its batch shape needs."""
    plates = {f"plate_{-d}": -d for d in range(1, len(batch) + 1) if batch[-d] > 1}
    value = torch.ones([*batch, *event])
    if support is constraints.positive_definite:
        value = torch.eye(event[0]).expand([*batch, *event]).contiguous()
    return Latent(
        name, SimpleNamespace(support=support), plates, torch.Size(batch), frozenset(), value
    )


def positive_definite(*shape):
    root = torch.randn(*shape, shape[-1])
    return root @ root.mT + torch.eye(shape[-1])


def factor(*shape):
    return torch.linalg.cholesky(positive_definite(*shape))


REAL, POSITIVE = constraints.real, constraints.positive


def normals():
    """Vectors of two, in a plate, and numbers in two plates."""
    latents = (
        latent("a", REAL, (), (2,)),
        latent("b", REAL, (3,), (2,)),
        latent("c", REAL, (4, 3)),
    )
    params = {
        "a": {"loc": torch.randn(2), "scale_tril": factor(2)},
        "b": {
            "loc": torch.randn(3, 2),
            "scale_tril": factor(3, 2),
            "slope": torch.randn(3, 2, 2),
        },
        "c": {
            "loc": torch.randn(4, 3),
            "scale_tril": factor(4, 3, 1),
            "slope": torch.randn(4, 3, 1, 4),
        },
    }
    return latents, params


def cases():
    """Rule, parameters, and other parameters of the same family."""
    latents, first = normals()
    second = normals()[1]
    tau, two_taus = latent("tau", POSITIVE), latent("tau", POSITIVE, (), (2,))
    gamma = [{"concentration": a, "rate": b} for a, b in torch.rand(2, 2) + 0.5]
    of_two = [{"concentration": a, "rate": b} for a, b in torch.rand(2, 2, 2) + 0.5]
    entries = [{"loc": torch.randn(5, 2), "scale_tril": factor(5, 2, 1)} for _ in range(2)]
    wisharts = [
        {
            "matrix": {"df": 3 + torch.rand(3), "scale_tril": factor(3, 2)},
            "vector": {"loc": torch.randn(4, 3, 2), "strength": torch.rand(4, 3) + 0.2},
        }
        for _ in range(2)
    ]
    matrix = latent("matrix", constraints.positive_definite, (3,), (2, 2))
    boolean = latent("on", constraints.boolean, (3,))
    kinds = latent("kind", constraints.integer_interval(0, 2), (3,))
    states = [
        {"on": {"logits": torch.randn(3)}, "kind": {"logits": torch.randn(3, 2, 3)}}
        for _ in range(2)
    ]
    return {
        "normals": (JointNormalRule(JointNormal(latents)), first, second),
        "normals and gamma": (
            JointNormalRule(NormalGamma(tau, latents)),
            {"tau": gamma[0], **first},
            {"tau": gamma[1], **second},
        ),
        "gamma of entries": (
            JointNormalRule(NormalGamma(two_taus, (latent("a", REAL, (5,), (2,)),))),
            {"tau": of_two[0], "a": entries[0]},
            {"tau": of_two[1], "a": entries[1]},
        ),
        "normal and wishart": (
            NormalWishartRule(NormalWishart(matrix, latent("vector", REAL, (4, 3), (2,)))),
            *wisharts,
        ),
        "states": (JointStatesRule(JointStates((boolean, kinds))), *states),
    }


def family_of(rule):
    if isinstance(rule, NormalWishartRule):
        matrix = latent("matrix", constraints.positive_definite, (3,), (2, 2))
        return NormalWishart(matrix, latent("vector", REAL, (4, 3), (2,)))
    if isinstance(rule, JointStatesRule):
        return JointStates(
            (
                latent("on", constraints.boolean, (3,)),
                latent("kind", constraints.integer_interval(0, 2), (3,)),
            )
        )
    return rule.family


def log_q(rule, params, values):
    """The density of a member at nodes, ``(S,)``: affine in the joint statistics."""
    total = 0.0
    family = family_of(rule)
    # nodes left of all plates, as particles are
    values = {
        x.name: values[x.name].unflatten(0, (-1, *[1] * (2 - len(x.batch_shape))))
        for x in family.latents
    }
    for site in rule.sites:
        density = family.distribution(site, params, values).log_prob(values[site])
        total = total + density.reshape(len(values[site]), -1).sum(-1)
    return total


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_entropy_is_minus_the_mean_log_density_at_nodes(name):
    """The log-density is affine in the statistics, and so its mean over nodes is exact."""
    rule, params, _ = cases()[name]
    nodes = rule.nodes(rule.points(params))
    values = {n: x.values for n, x in nodes.items()}
    total = sum(e.sum() for e in rule.entropy(params).values())
    if name == "states":
        each = 0.0
        for site in rule.sites:
            each = each + family_of(rule).distribution(site, params, values).log_prob(values[site])
        mean = (nodes["on"].weights * each).sum()
    else:
        mean = nodes[rule.sites[0]].weights @ log_q(rule, params, values)
    assert torch.allclose(total, -mean, rtol=1e-10)


def gradients_of(rule, params, other):
    """Gradients of the mean log-density of another member."""
    points = {n: p.detach().requires_grad_() for n, p in rule.points(params).items()}
    nodes = rule.nodes(points)
    values = {n: x.values for n, x in nodes.items()}
    if isinstance(rule, JointStatesRule):
        each = 0.0
        for site in rule.sites:
            each = each + family_of(rule).distribution(site, other, values).log_prob(values[site])
        mean = (nodes["on"].weights * each).sum()
    else:
        mean = nodes[rule.sites[0]].weights @ log_q(rule, other, values)
    found = torch.autograd.grad(mean, list(points.values()))
    detached = {n: p.detach() for n, p in points.items()}
    return detached, dict(zip(points, found, strict=True))


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_full_step_to_a_log_density_is_its_member(name):
    rule, params, other = cases()[name]
    points, gradients = gradients_of(rule, params, other)
    new = rule.step(params, points, gradients, 1.0)
    for site in rule.sites:
        assert set(new[site]) == set(other[site])
        for p, expected in other[site].items():
            got = new[site][p]
            if p == "logits" and site == "kind":
                got, expected = got.log_softmax(-1), expected.log_softmax(-1)
            assert torch.allclose(got, expected, rtol=1e-7, atol=1e-8), (site, p)


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_step_of_half_the_length_is_half_way_in_the_natural_parameters(name):
    """Then the log-density is the mean of both, up to a constant."""
    rule, params, other = cases()[name]
    points, gradients = gradients_of(rule, params, other)
    new = rule.step(params, points, gradients, 0.5)
    nodes = rule.nodes(rule.points(other))
    values = {n: x.values for n, x in nodes.items()}
    if name == "states":
        densities = [
            sum(family_of(rule).distribution(n, q, values).log_prob(values[n]) for n in rule.sites)
            for q in (new, params, other)
        ]
    else:
        densities = [log_q(rule, q, values) for q in (new, params, other)]
    gap = densities[0] - 0.5 * (densities[1] + densities[2])
    assert torch.allclose(gap, gap[:1].expand_as(gap), rtol=1e-8, atol=1e-8)
    assert float((densities[1] - densities[2]).std()) > 0.1


@pytest.mark.parametrize("name", sorted(cases()))
def test_nodes_are_twice_differentiable(name):
    rule, params, _ = cases()[name]
    leaves = {n: {p: v.clone().requires_grad_() for p, v in q.items()} for n, q in params.items()}
    flat = [v for q in leaves.values() for v in q.values()]
    nodes = rule.nodes(rule.points(leaves))
    total = sum((x.values.double() ** 2).sum() + x.weights.sum() for x in nodes.values())
    total = total + sum(e.sum() for e in rule.entropy(leaves).values())
    first = torch.autograd.grad(total, flat, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), flat, allow_unused=True)
    assert all(bool(g.isfinite().all()) for g in second if g is not None)
    assert any(bool((g != 0).any()) for g in second if g is not None)


def test_a_tree_and_its_precision():
    """Against the dense matrix over all elements."""
    _, params = normals()
    trils = [params[n]["scale_tril"] for n in "abc"]
    slopes = [
        [],
        [params["b"]["slope"]],
        list(params["c"]["slope"].split([2, 2], -1)),
    ]
    spread = factors(trils, slopes)
    # the vector (a, b_1, b_2, b_3, c_11, ..., c_43)
    dense = torch.zeros(20, 20)
    dense[:2, :2] = trils[0]
    for j in range(3):
        b = slice(2 + 2 * j, 4 + 2 * j)
        dense[b, :2], dense[b, b] = spread[1][0][j], spread[1][1][j]
        for i in range(4):
            c = 8 + 3 * i + j
            dense[c, :2], dense[c, b] = spread[2][0][i, j, 0], spread[2][1][i, j, 0]
            dense[c, c] = trils[2][i, j, 0, 0]
    inverse = (dense @ dense.T).inverse()
    rows = precision_of(trils, slopes)
    assert torch.allclose(rows[0][0], inverse[:2, :2])
    assert torch.allclose(rows[1][0][2], inverse[6:8, :2])
    assert torch.allclose(rows[1][1][2], inverse[6:8, 6:8])
    assert torch.allclose(rows[2][1][3, 2, 0], inverse[19, 6:8])

    right = [torch.randn(2), torch.randn(3, 2), torch.randn(4, 3, 1)]
    scales = [torch.cholesky_inverse(t) for t in trils]
    solved, again, back = eliminated(rows, right, scales)
    expected = torch.linalg.solve(inverse, torch.cat([r.flatten() for r in right]))
    assert torch.allclose(torch.cat([x.flatten() for x in solved]), expected)
    for one, other in zip(back, trils, strict=True):
        assert torch.allclose(one, other)
    assert torch.allclose(torch.cat(again[2], -1), params["c"]["slope"])
