"""The arithmetic of a step is that of the optimizer, for 50 steps."""

import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam

from pyro_klmodes.engine.moments import Moments
from pyro_klmodes.engine.updates import Rule, rule_of

ADAM = [
    {"lr": 0.05},
    {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-4},
    {"lr": 0.05, "weight_decay": 0.1},
]
CLIPPED = [
    {"lr": 0.05},
    {"lr": 0.05, "clip_norm": 0.5, "lrd": 0.98},
    {"lr": 0.05, "weight_decay": 0.1, "centered_variance": True},
]
CASES = [(torch.optim.Adam, o) for o in ADAM] + [(ClippedAdam, o) for o in CLIPPED]


def slope(p):
    """The gradient of something that is not flat anywhere near."""
    return torch.cos(3.0 * p) + p


def single(make, options, value):
    p = torch.nn.Parameter(value.clone())
    return p, make([p], **options)


def by_torch(p, optimizer, steps):
    for _ in range(steps):
        p.grad = slope(p.detach())
        optimizer.step()


def by_rule(moments, p, steps):
    value, (m, v) = p.detach().clone(), moments.pairs[0]
    for factors in moments.rule.factors(moments.done, steps, moments.rate).unbind(0):
        value, m, v = moments.rule(value, slope(value), m, v, factors)
    return value, m, v


@pytest.mark.parametrize(("make", "options"), CASES)
def test_fifty_steps(make, options):
    start = torch.tensor([0.3, -2.0, 7.0])
    p, optimizer = single(make, options, start)
    q, other = single(make, options, start)
    by_torch(p, optimizer, 1)
    by_torch(q, other, 1)
    moments = Moments.of([optimizer], [p])
    value, m, v = by_rule(moments, p, 49)
    moments.write([value], [(m, v)], 49)
    by_torch(q, other, 49)
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert (p - torch.nn.Parameter(start)).abs().min() > 0.01
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(
            optimizer.state[p][name], other.state[q][name], rtol=1e-12, atol=1e-12
        )
    assert int(optimizer.state[p]["step"]) == 50
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]


@pytest.mark.parametrize(("make", "options"), CASES)
def test_it_does_not_matter_in_how_many_runs_steps_are_taken(make, options):
    start = torch.tensor([0.3, -2.0, 7.0])
    values = []
    for parts in ([20], [3, 16, 1]):
        p, optimizer = single(make, options, start)
        by_torch(p, optimizer, 1)
        for steps in parts:
            moments = Moments.of([optimizer], [p])
            value, m, v = by_rule(moments, p, steps)
            moments.write([value], [(m, v)], steps)
        values.append(p.detach())
    assert torch.equal(*values)


def test_infinite_gradients_are_not_clipped():
    rule = Rule((0.9, 0.999), 1e-8, 0.0, clip=10.0)
    seen = rule.seen(torch.zeros(3), torch.tensor([torch.inf, -20.0, torch.nan]))
    assert torch.equal(seen.isnan(), torch.tensor([True, False, True]))
    assert seen[1] == -10.0


UNKNOWN = {
    "amsgrad": lambda p: torch.optim.Adam([p], amsgrad=True),
    "maximize": lambda p: torch.optim.Adam([p], maximize=True),
    "decoupled decay": lambda p: torch.optim.AdamW([p]),
    "another kind": lambda p: torch.optim.SGD([p], lr=0.1),
    "rate in a tensor": lambda p: torch.optim.Adam([p], lr=torch.tensor(0.1)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_optimizers_have_no_rule(name):
    assert rule_of([UNKNOWN[name](torch.nn.Parameter(torch.ones(2)))]) is None


def test_optimizers_that_differ_have_no_rule():
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    assert rule_of([]) is None
    assert rule_of([torch.optim.Adam([p], lr=0.1), torch.optim.Adam([q], lr=0.2)]) is None
    assert rule_of([torch.optim.Adam([p]), ClippedAdam([q])]) is None
    assert rule_of([torch.optim.Adam([p]), torch.optim.Adam([q])]) == Rule((0.9, 0.999), 1e-8, 0.0)
