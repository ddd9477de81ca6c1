"""What a graph becomes before a back end has it, by the interpreted tier."""

import pytest
import torch
from torch.fx import GraphModule

from pyro_klmodes.engine.backends import CompileFailed, build
from pyro_klmodes.errors import InvalidArgument
from tests.engine.backends.steps import copies, traced

CONSTANT = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def memory(x):
    return x.untyped_storage().data_ptr()


def test_outputs_own_their_memory():
    def f(x):
        y = x + 1
        return x, x[1:], x.view(1, 3), CONSTANT, CONSTANT[1:], y, y, y[:1], y.expand(2, 3)

    x = torch.randn(3)
    results = build(traced(f, [x]), [x], "graph")([x])
    for result, expected in zip(results, f(x), strict=True):
        assert torch.equal(result, expected)
    places = [memory(r) for r in (*results, x, CONSTANT)]
    assert len(set(places)) == len(places)


def test_the_graph_and_the_examples_stay_as_they_are():
    x = torch.randn(3)
    graph, before = traced(lambda x: (x, x * 2), [x]), x.clone()
    code = graph.code
    build(graph, [x], "graph", in_place={1: 0})
    assert graph.code == code
    assert torch.equal(x, before)


def test_an_output_in_place_may_be_another_input():
    inputs = [torch.tensor([1.0]), torch.tensor([2.0])]
    program = build(traced(lambda a, b: (b, a), inputs), inputs, "graph", in_place={0: 0, 1: 1})
    assert program(inputs) == []
    assert [float(x) for x in inputs] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("in_place", "message"),
    [
        ({2: 0}, "names output 2 and input 0, but there are 2 outputs and 2 inputs"),
        ({0: 5}, "names output 0 and input 5"),
        ({0: 0, 1: 0}, "has an input twice"),
        ({1: 0}, r"puts output 1 of shape \(\) and torch.float64 into input 0 of shape \(3,\)"),
    ],
)
def test_what_cannot_go_in_place_is_refused(in_place, message):
    inputs = [torch.randn(3), torch.randn(3)]
    graph = traced(lambda a, b: (a + b, a.sum()), inputs)
    with pytest.raises(InvalidArgument, match=message):
        build(graph, inputs, "graph", in_place=in_place)


def test_inputs_that_share_memory_are_not_changed_in_place():
    both = torch.randn(2, 3)
    graph = traced(lambda a, b: (a + b,), list(both))
    with pytest.raises(InvalidArgument, match="input 0, which shares its memory with another"):
        build(graph, list(both), "graph", in_place={0: 0})


def test_a_graph_of_another_form_is_refused():
    x = torch.randn(3)
    module = GraphModule(torch.nn.Linear(3, 3), traced(lambda x: x + 1, [x]).graph)
    with pytest.raises(CompileFailed, match="does not give one flat tuple"):
        build(module, [x], "graph")
    linear = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(3, 3)))
    with pytest.raises(CompileFailed, match="of the kind call_module"):
        build(linear, [x], "graph")


def test_a_graph_that_does_not_run_on_its_examples_is_refused():
    inputs = [torch.randn(3), torch.randn(3)]
    graph = traced(lambda a, b: (a + b,), inputs)
    with pytest.raises(CompileFailed, match="does not run on its examples"):
        build(graph, [torch.randn(3), torch.randn(4)], "graph")


def test_building_draws_nothing_and_running_draws_what_the_graph_does():
    def f(x):
        return x + torch.randn(3), torch.rand(20), torch.empty(5).exponential_()

    x = torch.randn(3)
    graph = traced(f, [x])
    torch.manual_seed(3)
    state = torch.get_rng_state()
    program = build(graph, [x], "graph")
    assert torch.equal(torch.get_rng_state(), state)
    drawn = program([x])
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(drawn, f(x), strict=True))


def test_short_cuts_give_the_same_bits():
    def f(x, i, b):
        chosen = torch.where(b, x, -torch.inf)
        return (
            *(x.softmax(0), torch.nn.functional.softplus(x), x.logsumexp(1), x.cumsum(0), x**2.5),
            *(torch.special.digamma(x), torch.lgamma(x), x.sort(1).values, x.topk(2, 1).indices),
            *(x[i], torch.linalg.cholesky(x.T @ x + torch.eye(4)), chosen, chosen.exp(), x / 0),
            *(x.T, torch.stack([x, x]), x.std(0), x.argmax(1), i + 1, ~b, x.clamp(min=0.1)),
        )

    inputs = [torch.randn(5, 4), torch.tensor([4, 0, 0]), torch.rand(5, 4) > 0.5]
    graph = traced(f, inputs)
    with torch.no_grad():
        expected = [x.clone() for x in graph(*copies(inputs))]
    results = build(graph, inputs, "graph")(inputs)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)
