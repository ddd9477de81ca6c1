"""What a loop does turn by turn is done at once, with the values of the loop."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.graphs.alike import join_many_terms, merge_alike
from pyro_klmodes.engine.graphs.alike.merge import merge_alike as merge
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.values import refresh
from tests.engine.graphs.made import calls

T = 20
VECTOR = torch.linspace(-1.0, 2.0, T, dtype=torch.float64)
MATRIX = torch.randn(T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INDEX = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def merged(function, *examples):
    """The graph of a function with loops undone; its values are checked."""
    graph = make_fx(function)(*examples)
    refresh(graph, examples)
    before = calls(graph)
    found = drop_dead_code(join_many_terms(drop_dead_code(merge_alike(graph))))
    found.graph.lint()
    found.recompile()
    for other in (examples, [x.flip(0) * 0.7 - 0.1 for x in examples]):
        for a, b in zip(found(*other), function(*other), strict=True):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    return before, calls(found)


def random_walk(x, y):
    """The log-density of a chain with one step per turn, and its gradient in some of x."""
    total = x[0] * 0.0
    for t in range(1, T):
        scale = torch.nn.functional.softplus(x[t])
        total = total - 0.5 * ((x[t] - x[t - 1]) / scale) ** 2 - scale.log()
        total = total - (y[t] - x[t].exp()) ** 2
    return total


def repeating(x, y):
    total = y
    for t in range(T):
        total = total + x[t].sin() + y
    return total


LOOPS = {
    "pointwise": lambda x, y: (torch.stack([x[t].exp() * y[t] + 2 for t in range(T)]),),
    "neighbours": lambda x, y: (torch.stack([x[t] - x[t - 1] for t in range(1, T)]),),
    "backwards": lambda x, y: (torch.stack([x[T - 1 - t].sin() - y[t] for t in range(T)]),),
    "every other": lambda x, y: (torch.stack([x[t].sin() for t in range(0, T, 2)]),),
    "irregular": lambda x, y: (torch.stack([x[t].sin() * y[k] for k, t in enumerate(INDEX)]),),
    "with one for all": lambda x, y: (torch.stack([x[t] * y[3] for t in range(T)]),),
    "slices": lambda x, y: (torch.cat([x[t : t + 1].sin().cos() for t in range(T)]),),
    "long pieces": lambda x, y: (torch.stack([p.view(2).exp().sum() for p in x.split(2)]),),
    "a choice": lambda x, y: (torch.stack([torch.where(x[t] > 0, x[t], y[t]) for t in range(T)]),),
    "a sum": lambda x, y: (sum(x[t] ** 2 for t in range(T)),),
    "a sum with repetitions": lambda x, y: (repeating(x, y[0] * 2),),
    "a random walk": lambda x, y: (random_walk(x, y),),
}
ROWS = {
    "rows": lambda x, y: (torch.stack([(x[t] * y[t]).sum() for t in range(T)]),),
    "sums along rows": lambda x, y: (torch.stack([x[t].exp().sum(-1, True) for t in range(T)]),),
    "sums down rows": lambda x, y: (torch.stack([x[t].exp().sum(0) for t in range(T)]),),
    "elements of rows": lambda x, y: (torch.stack([x[t].exp()[1] for t in range(T)]),),
    "parts of rows": lambda x, y: (torch.stack([x[t].exp()[1:3] for t in range(T)]),),
    "more dimensions": lambda x, y: (torch.stack([x[t].unsqueeze(-1) - y[t] for t in range(T)]),),
    "reshaped": lambda x, y: (torch.stack([x[t].exp().view(3, 1) for t in range(T)]),),
    "expanded": lambda x, y: (torch.stack([x[t].exp().expand(2, 3) * 2 for t in range(T)]),),
    "all of them": lambda x, y: (torch.stack([(x[t] > 0).all() for t in range(T)]),),
    "rows and a vector": lambda x, y: (torch.stack([x[t] * y[0] for t in range(T)]),),
    "numbers and a vector": lambda x, y: (torch.stack([x[t, 0] * y[0] for t in range(T)]),),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_over_a_vector_is_one_turn(name):
    before, after = merged(LOOPS[name], VECTOR, VECTOR.flip(0) ** 2)
    heavy = [c for c in after if c.split(".")[0] not in ("select", "slice", "view", "unsqueeze")]
    assert len(heavy) < len(before) / 4, after


@pytest.mark.parametrize("name", ROWS)
def test_a_loop_over_rows_is_one_turn(name):
    before, after = merged(ROWS[name], MATRIX, MATRIX.flip(0) ** 2)
    heavy = [c for c in after if c.split(".")[0] not in ("select", "unsqueeze")]
    assert len(heavy) < len(before) / 4, after


def test_gradients_of_a_loop_are_one_turn_too():
    def slope(x, y):
        x = x.detach().requires_grad_()
        value = random_walk(x, y)
        return value.detach(), *torch.autograd.grad(value, x)

    before, after = merged(slope, VECTOR, VECTOR.flip(0) ** 2)
    assert len(before) > 500
    assert after.count("softplus.default") == 1
    assert after.count("log.default") == 1


def test_what_always_holds_is_asked_once():
    def function(x, y):
        good = always = y[0] > 1
        for t in range(T):
            good = good & (x[t] > 0).all() & always
        return (good,)

    _, after = merged(function, VECTOR, VECTOR)
    assert after.count("gt.Scalar") == 2
    assert after.count("bitwise_and.Tensor") == 1
    assert "all.dim" in after


def test_pieces_of_two_loops_are_put_together_at_once():
    def function(x, y):
        pieces = [f(x[t]).view(1) for t in range(T) for f in (torch.sin, torch.cos)]
        return (torch.cat([y[:5] * 2, *pieces, y[:1]]),)

    _, after = merged(function, VECTOR, VECTOR)
    assert after.count("sin.default") == after.count("cos.default") == 1
    assert after.count("index_select.default") == 1
    assert after.count("select.int") == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (x[0].sin() + x[1].sin(), y * 2),  # too few
        lambda x, y: (torch.stack([(x * t).sin() for t in range(T)]), y),  # no rows
        lambda x, y: (torch.stack([x[t] + torch.randn(()) for t in range(T)]), y),  # draws
    ],
)
def test_a_graph_without_loops_is_left_as_it_is(function):
    graph = make_fx(function)(VECTOR, VECTOR)
    refresh(graph, [VECTOR, VECTOR])
    assert merge(graph) is graph


def test_numbers_of_two_types_are_promoted_as_single_numbers_are():
    def function(x, y):
        return (torch.stack([x[t] * y for t in range(T)]),)

    single = torch.linspace(0, 1, T, dtype=torch.float64), torch.ones(3, dtype=torch.float32)
    graph = make_fx(function)(*single)
    refresh(graph, single)
    (found,) = merge_alike(graph)(*single)
    assert found.dtype == torch.float32
    assert torch.equal(found, function(*single)[0])
