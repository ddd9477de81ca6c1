"""What is written down is what torch's own recorder writes down, of plain tensors."""

import operator

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.record import is_recorded, record
from pyro_klmodes.engine.graphs.values import val
from tests.engine.graphs.made import assert_same, calls, run

X = torch.linspace(-2.0, 3.0, 6, dtype=torch.float64).reshape(2, 3)
Y = torch.linspace(0.5, 1.5, 9, dtype=torch.float64).reshape(3, 3)
HELD = torch.arange(3.0, dtype=torch.float64)


def text(graph):
    """Every node, with numbers for the others, and what constants hold."""
    numbers, lines = {}, []
    for i, node in enumerate(graph.graph.nodes):
        numbers[node] = f"node {i}"
        given = map_arg((node.args, node.kwargs), numbers.__getitem__)
        held = getattr(graph, node.target).tolist() if node.op == "get_attr" else ""
        target = node.target if node.op == "call_function" else ""
        lines.append(f"{node.op} {target} {given} {held}")
    return lines


def in_place(x, y):
    z = torch.zeros(3, dtype=x.dtype)
    z[1] = x.sum()
    z.mul_(2).add_(y[0])
    return z.sum(), z


def parts(x, y):
    values, places = torch.topk(x, 2)
    one, *others = torch.split(y, [1, 2])
    return values.sum() + places, torch.cat([one, *others, HELD[None]]), x.unbind(0)[1]


def numbers_of_python(x, y):
    a = torch.tensor(3.0, dtype=x.dtype)
    a.add_(1)
    return x * a.item(), y * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype), x + a


def gradients(x, y):
    with torch.enable_grad():
        p = x.detach().requires_grad_()
        loss = torch.logsumexp((p @ y).tanh(), -1).sum() + torch.nn.functional.softplus(p).prod()
        return torch.autograd.grad(loss, [p])


def mapped(x, y):
    return (torch.func.vmap(lambda row: (row * HELD).sum() * y[0].sin())(x),)


def decompositions(x, y):
    return torch.linalg.cholesky(y @ y.T + 9 * torch.eye(3, dtype=x.dtype)), torch.linalg.svd(y)[1]


def random(x, y):
    return torch.randn(3) + x, torch.empty_like(y).normal_(), torch.rand_like(x).bernoulli_(0.5)


def without_gradients(x, y):
    with torch.inference_mode():
        z = torch.einsum("ij,jk->ik", torch.ones(2, 3, dtype=x.dtype), y.clone())
    return (x * z,)


@pytest.mark.parametrize(
    "function",
    [
        *(in_place, parts, numbers_of_python, gradients, mapped, decompositions, random),
        without_gradients,
    ],
)
def test_it_is_what_torch_writes_down(function):
    graph, expected = record(function, [X, Y]), make_fx(function)(X, Y)
    assert text(graph) == text(expected)
    assert_same(run(graph, [X, Y]), run(expected, [X, Y]))


def test_layouts_are_noted():
    graph = record(lambda x: (x.t().exp(), *torch.topk(x, 2)), [X])
    noted = [val(n) for n in graph.graph.nodes if n.op == "call_function"]
    assert [x.stride() for x in noted[:2]] == [(1, 3), (1, 3)]
    assert [tuple(x.shape) for x in noted[2]] == [(2, 2), (2, 2)]
    assert noted[3].dtype == torch.float64
    assert noted[4].dtype == torch.int64


def test_a_tensor_from_elsewhere_is_held_itself():
    graph = record(lambda x: (x + HELD, HELD), [X])
    held = [getattr(graph, n.target) for n in graph.graph.find_nodes(op="get_attr")]
    assert all(x is HELD for x in held)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: x[0, 0].item(),
        lambda x: int(x.argmax()),
        lambda x: torch.equal(x, x + 1),
    ],
)
def test_numbers_that_depend_on_inputs_are_not_shown(look):
    with pytest.raises(RuntimeError, match="get value out of a tracing tensor"):
        record(lambda x: (x * look(x),), [X])


def test_a_number_of_python_is_not_shown_once_an_input_was_written_to_its_memory():
    def function(x):
        number = torch.tensor(2.0, dtype=x.dtype)
        number.view(1).add_(x[0, :1])
        return (x * number.item(),)

    with pytest.raises(RuntimeError, match="get value out of a tracing tensor"):
        record(function, [X])


def test_looking_at_numbers_of_python_changes_nothing():
    held = torch.zeros((), dtype=torch.float64)
    record(lambda x: (x * held.add_(torch.tensor(1.0)).item(),), [X])
    assert held == 1.0


def test_what_a_graph_cannot_hold_is_refused():
    generator = torch.Generator()
    with pytest.raises(NotImplementedError, match="of the kind Generator"):
        record(lambda x: (x + torch.randn(3, generator=generator),), [X])
    compiled = torch.compile(torch.sin, backend="eager")
    with pytest.raises(RuntimeError, match="symbolically trace"):
        record(lambda x: (compiled(x),), [X])
    with pytest.raises(NotImplementedError, match="cond"):
        record(lambda x: (torch.cond(torch.tensor(True), torch.sin, torch.cos, (x,)),), [X])


def test_an_operation_that_fails_leaves_nothing_behind():
    def function(x):
        try:
            torch.linalg.cholesky(-HELD * torch.eye(3, dtype=x.dtype) - 1)
        except RuntimeError:
            return (x.exp(),)
        return (x,)

    graph = record(function, [X])
    assert calls(graph)[-1] == "exp.default"
    assert_same(run(graph, [X])[:1], [X.exp()])


def test_what_is_recorded_is_known_while_it_lasts():
    seen = []

    def function(x):
        seen.extend([is_recorded(x), is_recorded(x + 1), is_recorded(HELD)])
        return (x,)

    record(function, [X])
    assert seen == [True, True, False]
    assert not is_recorded(X)
    with pytest.raises(ZeroDivisionError):
        record(lambda x: 1 // 0, [X])
    assert not is_recorded(X)


def test_parts_of_tuples_have_nodes():
    graph = record(lambda x: (torch.topk(x, 1).indices,), [X])
    (output,) = graph.graph.find_nodes(op="output")
    assert output.args[0][0].target is operator.getitem
