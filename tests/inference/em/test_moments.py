"""Closed-form M-steps are where the expected complete-data log-likelihood is flat, or rises."""

import pyro
import pytest
import torch

from pyro_klmodes.guides.bijection import bijection_to
from pyro_klmodes.inference.em.moments import ClosedForm
from tests.inference.em import models_by_hand as models
from tests.inference.em.runs_by_hand import (
    expected_log_joint,
    parameters_by_hand,
    random_factors,
    run_of,
)

STARTS = 3


def setup_of(model, points=()):
    pyro.clear_param_store()
    parameters = parameters_by_hand(model, points=points)
    return run_of(model, nesting=2, points=points), parameters


def some_values(parameters, seed=5):
    """Other constrained values for every start."""
    torch.manual_seed(seed)
    found = {}
    for name, info in parameters.items():
        transform = bijection_to(info.constraint, name)
        shape = transform.inverse_shape(info.value.shape)
        found[name] = transform(0.5 * torch.randn(STARTS, *shape))
    return found


def at(values, start):
    return {n: v[start] for n, v in values.items()}


def steepness(run, parameters, values, factors, start):
    """The gradient of Q in unconstrained space, by parameter, per weight of the data."""
    leaves = {}
    for name, info in parameters.items():
        leaves[name] = bijection_to(info.constraint, name).inv(values[name][start]).detach()
        leaves[name].requires_grad_()
    inside = {n: bijection_to(parameters[n].constraint, n)(u) for n, u in leaves.items()}
    q = expected_log_joint(run, inside, factors, start)
    gradients = torch.autograd.grad(q, list(leaves.values()))
    return {n: g.abs().max().item() for n, g in zip(leaves, gradients, strict=True)}


def check_flat(model, points=()):
    run, parameters = setup_of(model, points)
    closed = ClosedForm.find(run, parameters)
    assert closed.reasons == {}
    assert set(closed.covered) == set(parameters)

    before = some_values(parameters)
    factors = random_factors(run, at(before, 0), STARTS)
    found = closed.maximise(closed.statistics(factors), before)
    assert found.faults == []
    for start in range(STARTS):
        steep_before = steepness(run, parameters, before, factors, start)
        steep = steepness(run, parameters, found.values, factors, start)
        for name in parameters:
            assert found.values[name].shape == before[name].shape
            assert steep[name] < 1e-8, name
            assert steep_before[name] > 1e-2, name


@pytest.mark.parametrize("model", models.EXACT, ids=lambda m: m.__qualname__)
def test_the_gradient_is_zero_at_the_maximum(model):
    check_flat(model)


@pytest.mark.parametrize("model", models.EXACT_WITH_PRIORS, ids=lambda m: m.__name__)
def test_the_gradient_is_zero_at_the_maximum_with_a_prior(model):
    check_flat(model, models.EXACT_WITH_PRIORS[model])


@pytest.mark.parametrize("model", models.CONDITIONAL, ids=lambda m: m.__name__)
def test_conditional_maximisation_is_flat_in_each_and_rises(model):
    points, (first, second) = models.CONDITIONAL[model]
    run, parameters = setup_of(model, points)
    closed = ClosedForm.find(run, parameters)
    assert set(closed.covered) == {first, second}

    before = some_values(parameters)
    factors = random_factors(run, at(before, 0), STARTS)
    found = closed.maximise(closed.statistics(factors), before)
    assert found.faults == []
    halfway = {first: found.values[first], second: before[second]}
    for start in range(STARTS):
        assert steepness(run, parameters, before, factors, start)[first] > 1e-2
        assert steepness(run, parameters, halfway, factors, start)[first] < 1e-8
        assert steepness(run, parameters, halfway, factors, start)[second] > 1e-2
        assert steepness(run, parameters, found.values, factors, start)[second] < 1e-8
        rises = [
            expected_log_joint(run, at(v, start), factors, start).item()
            for v in (before, halfway, found.values)
        ]
        assert rises[0] < rises[1] < rises[2]
