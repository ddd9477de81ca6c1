"""Graphs are held against eager code, which is left as it was."""

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import ReverseKL
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.reference import Point, Reference, eager_gradient
from pyro_klmodes.engine.verify import difference, reordered, same_operations, verify
from pyro_klmodes.tracing.runs import Pair


def guide():
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.2)), scale))


def model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))


def prepared(model=model, guide=guide, modules=()):
    pair, loss = Pair(model, guide), ReverseKL(2)
    loss.loss_and_grads(model, guide)
    leaves = dict(pyro.get_param_store().named_parameters())
    for leaf in leaves.values():
        leaf.grad = None
    return pair, loss, Parameters(leaves, modules)


def test_eager_gradients_leave_nothing_behind():
    pair, loss, parameters = prepared()
    kept = torch.ones(())
    parameters.leaves[0].grad = kept
    value, gradients = eager_gradient(pair, loss, parameters, 7)
    assert value.isfinite()
    assert all(g is not None for g in gradients)
    assert parameters.leaves[0].grad is kept
    assert parameters.leaves[1].grad is None
    assert loss.step == 1


def states():
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def test_reference_leaves_parameters_and_generators_as_they_were():
    pair, loss, parameters = prepared()
    before, values = states(), [p.detach().clone() for p in parameters.leaves]
    reference = Reference.of(pair, loss, parameters)
    after = states()
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert all(torch.equal(a, b) for a, b in zip(values, parameters.leaves, strict=True))
    assert len({p.at[0].item() for p in reference.points}) == len(reference.points) == 3
    assert len({p.step for p in reference.points}) == 3


def eagerly(pair, loss, parameters):
    """A graph that is always right."""

    def run(point):
        with torch.no_grad():
            before = [p.clone() for p in parameters.leaves]
            for p, value in zip(parameters.leaves, point.at, strict=True):
                p.copy_(value)
        found = eager_gradient(pair, loss, parameters, point.step)
        with torch.no_grad():
            for p, value in zip(parameters.leaves, before, strict=True):
                p.copy_(value)
        return found

    return run


WRONG = {
    "another loss": lambda value, g: (value + 1e-6, g),
    "another gradient": lambda value, g: (value, (g[0] * (1.0 + 1e-9), g[1])),
    "no gradient": lambda value, g: (value, (None, g[1])),
    "another shape": lambda value, g: (value, (g[0][None], g[1])),
    "not a number": lambda value, g: (value, (g[0] * math.nan, g[1])),
}


def test_what_is_right_passes():
    pair, loss, parameters = prepared()
    verify(Reference.of(pair, loss, parameters), eagerly(pair, loss, parameters), same_operations)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_does_not(name):
    pair, loss, parameters = prepared()
    reference, right = Reference.of(pair, loss, parameters), eagerly(pair, loss, parameters)
    with pytest.raises(CannotLift, match="the graph gives other numbers"):
        verify(reference, lambda point: WRONG[name](*right(point)), same_operations)


def test_other_use_of_the_generator_does_not_pass():
    pair, loss, parameters = prepared()
    reference, right = Reference.of(pair, loss, parameters), eagerly(pair, loss, parameters)

    def more(point):
        found = right(point)
        torch.rand(1)
        return found

    with pytest.raises(CannotLift, match="generator in another state"):
        verify(reference, more, same_operations)


def test_runs_that_change_something_are_refused_by_name():
    count = [0]

    def counting():
        count[0] += 1
        model()

    pair, loss, parameters = prepared(counting)
    with pytest.raises(CannotLift, match="a step changes 'count' around counting"):
        Reference.of(pair, loss, parameters)


def test_parameters_that_runs_make_are_taken_away_again():
    late = [False]

    def later():
        loc = pyro.param("loc", torch.tensor(0.2))
        if late[0]:
            loc = loc + pyro.param("late", torch.tensor(0.1))
        pyro.sample("z", dist.Normal(loc, 0.5))

    pair, loss, parameters = prepared(guide=later)
    late[0] = True
    with pytest.raises(CannotLift, match="parameter 'late' is made by a later step only"):
        Reference.of(pair, loss, parameters)
    assert "late" not in pyro.get_param_store()


def test_points_that_are_not_allowed_are_moved_nearer():
    def close_to_the_edge():
        share = pyro.param("share", torch.tensor(0.999))
        pyro.sample("seen", dist.Bernoulli(share), obs=torch.tensor(1.0))
        model()

    pair, loss, parameters = prepared(close_to_the_edge)
    reference = Reference.of(pair, loss, parameters)
    at = list(parameters.names).index("share")
    moved = [abs(float(p.at[at]) - 0.999) for p in reference.points[1:]]
    assert 0.0 < max(moved) < 0.1
    assert all(p.gradient[0].isfinite() for p in reference.points)


def test_a_model_that_fails_here_is_not_lifted():
    broken = [False]

    def breaking():
        model()
        if broken[0]:
            raise OSError("the disk is on fire")

    pair, loss, parameters = prepared(breaking)
    broken[0] = True
    with pytest.raises(CannotLift, match="a step fails: OSError: the disk is on fire"):
        Reference.of(pair, loss, parameters)


def test_difference():
    a, nan, inf = torch.tensor([1.0, -4.0]), torch.tensor([math.nan]), torch.tensor([math.inf])
    assert difference(a, a.clone(), 0.0) == 0.0
    assert difference(a, a + torch.tensor([0.0, 1.0]), 0.0) == 0.25
    assert difference(a, a + torch.tensor([0.0, 1.0]), 10.0) == 0.1
    assert (
        difference(None, None, 0.0) == difference(nan, nan, 0.0) == difference(inf, inf, 0.0) == 0
    )
    assert difference(torch.zeros(0), torch.zeros(0), 0.0) == 0.0
    for left, right in ((None, a), (torch.zeros(2), None), (a, a[None]), (nan, inf), (inf, a[:1])):
        assert difference(left, right, 1.0) == math.inf


def test_what_may_differ():
    eps = torch.finfo(torch.float64).eps
    assert same_operations(eps) < 1e-12 < reordered(eps) < 1e-7


def made_of(slope):
    """A reference of one point, in single precision, for a loss of one and a slope."""

    def elsewhere(point, at):
        return point._replace(at=at, gradient=(torch.tensor(1.0), tuple(map(slope, at))))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        point = Point(0, 0, [torch.tensor(0.5, dtype=torch.float32)], (), torch.get_rng_state())
    return Reference([elsewhere(point, point.at)], elsewhere)


def shifted(by):
    return lambda point: (point.gradient[0], tuple(g + by for g in point.gradient[1]))


def steep(p):
    """One at 0.5, where rounding the parameter, by 1.2e-7 of it, moves this by 1.8e-4."""
    return 1.0 + torch.sin(4 * math.pi * 239 * p)


def test_where_rounding_moves_a_gradient_programs_may_move_it_too():
    reference = made_of(steep)
    moved = [float(g[1][0] - 1.0) for g in reference.rounded(reference.points[0])]
    assert 1e-4 < max(map(abs, moved)) < 2e-4
    verify(reference, shifted(6e-4), reordered)
    with pytest.raises(CannotLift, match="differ by 0.005"):
        verify(reference, shifted(5e-3), reordered)


def test_no_rounding_allows_for_much():
    with pytest.raises(CannotLift, match="other numbers"):
        verify(made_of(lambda p: 1.0 + torch.sin(1e6 * p)), shifted(0.03), reordered)


def test_where_it_does_not_they_may_not():
    with pytest.raises(CannotLift, match="differ by 0.0012"):
        verify(made_of(lambda p: p), shifted(6e-4), reordered)
