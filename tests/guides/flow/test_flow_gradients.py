"""Gradients through draws, and which density a draw is given."""

import pytest
import torch

from pyro_klmodes.guides.flow import Direction
from tests.guides.flow.flows import ARCHITECTURES, BASES, TAILS, flow, shaken


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_parameter_gets_gradients_from_draws_and_from_densities(architecture, base):
    family = shaken(flow(2, architecture=architecture, base=base, tails=TAILS["pareto tails"]))
    for function in (
        lambda density: density.rsample(torch.Size([50])).square().log1p().sum(),
        lambda density: density.log_prob(torch.randn(50, 2)).sum(),
    ):
        gradients = torch.autograd.grad(function(family.density()), list(family.parameters()))
        for (name, _), gradient in zip(family.named_parameters(), gradients, strict=True):
            assert gradient.isfinite().all(), name
            assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_remembered_density_has_the_gradients_of_the_computed_one(architecture, base):
    """Differentiating the density of a draw, known on the way out or computed on the way back."""
    family = shaken(flow(2, architecture=architecture, base=base, tails=TAILS["student tails"]))
    parameters = list(family.parameters())
    density = family.density()
    u = density.rsample(torch.Size([4]))
    # the location moves a draw along with the density, so what is remembered does not know it
    remembered = torch.autograd.grad(
        density.log_prob(u).sum(), parameters, retain_graph=True, materialize_grads=True
    )
    computed = torch.autograd.grad(density.log_prob(u.clone()).sum(), parameters)
    for mine, theirs in zip(remembered, computed, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_the_very_tensor_drawn_last_is_not_inverted():
    density = flow(2).density()
    first, last = density.rsample(torch.Size([3])), density.rsample(torch.Size([3]))
    assert density.log_prob(last) is density.log_prob(last)
    for other in (first, last.clone(), last.detach(), last[:2]):
        assert density.log_prob(other) is not density.log_prob(other)


def test_a_detached_draw_is_a_given_value():
    family = shaken(flow(2, base=BASES["student"]))
    parameters = list(family.parameters())
    density = family.density()
    u = density.rsample(torch.Size([4]))
    scores = torch.autograd.grad(density.log_prob(u.detach()).sum(), parameters, retain_graph=True)
    given = torch.autograd.grad(family.density().log_prob(u.detach()).sum(), parameters)
    whole = torch.autograd.grad(density.log_prob(u).sum(), parameters, materialize_grads=True)
    for score, expected in zip(scores, given, strict=True):
        torch.testing.assert_close(score, expected)
    assert any((score - w).abs().max() > 0.01 for score, w in zip(scores, whole, strict=True))


def test_a_draw_without_gradients_scored_with_them_is_a_given_value():
    family = shaken(flow(2))
    density = family.density()
    with torch.no_grad():
        u = density.rsample(torch.Size([4]))
        assert density.log_prob(u) is density.log_prob(u)
    parameters = list(family.parameters())
    score = torch.autograd.grad(density.log_prob(u).sum(), parameters)
    expected = torch.autograd.grad(family.density().log_prob(u.clone()).sum(), parameters)
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("direction", Direction)
def test_passes_of_the_network_in_either_direction(direction):
    """One in the fast direction, D to invert and one for the Jacobian in the other."""
    dim = 5
    name = (
        "spline, fast sampling" if direction is Direction.FAST_SAMPLING else "spline, fast density"
    )
    architecture = ARCHITECTURES[name]
    family = flow(dim, architecture=architecture)
    passes = []
    for layer in family.layers.chain.transforms:
        layer.hyper.register_forward_hook(lambda *_: passes.append(1))
    density = family.density()
    u = density.rsample(torch.Size([2]))
    density.log_prob(u)
    drawing = len(passes)
    density.log_prob(u.detach())
    scoring = len(passes) - drawing
    fast, slow = architecture.transforms, architecture.transforms * (dim + 1)
    expected = (fast, slow) if direction is Direction.FAST_SAMPLING else (slow, fast)
    assert (drawing, scoring) == expected
