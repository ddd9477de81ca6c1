"""The state of optimizers is taken out and put back."""

import torch

from pyro_klmodes.engine.moments import Moments


def optimizers(*steps):
    """One Adam for each number of steps, which it has taken."""
    found = []
    for n in steps:
        p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        adam = torch.optim.Adam([p], lr=0.1)
        for _ in range(n):
            p.grad = torch.ones(2)
            adam.step()
        found.append((p, adam))
    params, adams = zip(*found, strict=True)
    return params, adams


def test_what_is_taken_out():
    params, adams = optimizers(3, 3)
    moments = Moments.of(adams, params)
    assert (moments.done, moments.rate) == (3, 0.1)
    assert moments.pairs[1][0] is adams[1].state[params[1]]["exp_avg"]


def test_states_that_do_not_go_together():
    params, adams = optimizers(3, 2)
    assert Moments.of(adams, params) is None  # other numbers of steps
    params, adams = optimizers(0, 0)
    assert Moments.of(adams, params) is None  # no step yet
    assert Moments.of([], []) is None


def test_what_is_put_back_keeps_the_tensors():
    params, adams = optimizers(3)
    state = adams[0].state[params[0]]
    first, second = state["exp_avg"], state["exp_avg_sq"]
    moments = Moments.of(adams, params)
    moments.write([torch.tensor([5.0, 6.0])], [(torch.ones(2), torch.full((2,), 2.0))], 4)
    assert params[0].tolist() == [5.0, 6.0]
    assert state["exp_avg"] is first
    assert (first.tolist(), second.tolist()) == ([1.0, 1.0], [2.0, 2.0])
    assert int(state["step"]) == 7
    assert adams[0].param_groups[0]["lr"] == 0.1
