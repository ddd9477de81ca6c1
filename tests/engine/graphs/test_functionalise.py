"""Nothing is written to but what must be."""

import pytest
import torch

from pyro_klmodes.engine.graphs.aliases import effects
from pyro_klmodes.engine.graphs.operations import is_mutable
from pyro_klmodes.engine.graphs.passes.functionalise import functionalise
from tests.engine.graphs.made import assert_same, calls, graph_of, run


def functional(function, *examples):
    graph = graph_of(function, *examples)
    expected = run(graph, [x.clone() for x in examples])
    graph = functionalise(graph, examples)
    graph.graph.lint()
    graph.recompile()
    assert_same(run(graph, [x.clone() for x in examples]), expected)
    return graph


def writers(graph):
    return [n for n in graph.graph.nodes if n.op == "call_function" and is_mutable(n)]


def in_a_row(x):
    return (x.exp().add_(1).mul_(x).clamp_(0.1, 2.0),)


def by_two_names(x):
    y = x.exp()
    z = y.view(-1)
    y.mul_(2)
    return y, z + 1


def through_a_view(x):
    y = x.exp()
    y[0].add_(1)
    y[..., 1] = 3.0
    return (y * 2,)


def another_dtype(x):
    y = torch.zeros(3, 3, dtype=torch.float32)
    y.add_(x)
    return (y,)


def with_indices(x):
    y = torch.zeros_like(x)
    y.index_put_((torch.tensor([0, 0]),), x[:2], accumulate=True)
    y.scatter_(0, torch.tensor([[0, 1, 2]]), 1.0)
    return (y, (x > 0).logical_and_(x < 1))


def with_another_layout(x):
    return (x.t().exp().masked_fill_(x.t() > 0, -1.0).view_as(x.t()),)


def after_a_draw(x):
    return (torch.empty(3, 3).normal_().mul_(2).add_(x),)


@pytest.mark.parametrize(
    "function",
    [in_a_row, by_two_names, through_a_view, another_dtype, with_indices, with_another_layout],
)
def test_writing_to_intermediate_results_disappears(function):
    assert not writers(functional(function, torch.randn(3, 3)))


def test_fillers_of_fresh_tensors_stay():
    graph = functional(after_a_draw, torch.randn(3, 3))
    assert [str(n.target) for n in writers(graph)] == ["aten.normal_.default"]


def test_a_filler_of_a_part_draws_as_before():
    def function(x):
        y = x.exp()
        y[1].normal_()
        return (y + torch.rand(3),)

    assert not writers(functional(function, torch.randn(3, 3)))


@pytest.mark.parametrize("state", [None, torch.zeros(3, 3)])
def test_effects_that_outlive_a_run_stay_and_are_told(state):
    def function(x):
        (x if state is None else state).add_(1)
        return (x.exp().mul_(2),)

    graph = graph_of(function, torch.randn(3, 3))
    graph = functionalise(graph, [torch.randn(3, 3)])
    assert [str(n.target) for n in effects(graph.graph)] == ["aten.add_.Tensor"]
    assert [str(n.target) for n in writers(graph)] == ["aten.add_.Tensor"]


def test_a_graph_without_writing_is_left():
    graph = graph_of(lambda x: (x.exp() + 1,), torch.randn(3))
    before = calls(graph)
    assert functionalise(graph, [torch.randn(3)]) is graph
    assert calls(graph) == before
