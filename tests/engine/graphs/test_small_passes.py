"""Fills, logs of truth values, chains of views and dead code."""

import torch

from pyro_klmodes.engine.graphs.passes.chained_views import join_views
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.passes.fills import expand_fills
from pyro_klmodes.engine.graphs.passes.truth_values import choose_logs_of_truth
from tests.engine.graphs.made import after, aten, calls, graph_of, run, with_special_values

X = torch.randn(16, 900)


def test_a_fill_is_a_number_for_pointwise_users():
    graph = after(expand_fills, lambda x: (x * torch.zeros_like(x) + x.new_ones(900),), X)
    assert calls(graph) == ["expand.default", "mul.Tensor", "expand.default", "add.Tensor"]


def test_a_fill_for_others_does_not_depend_on_a_tensor():
    def function(x):
        y = torch.zeros_like(x.exp())
        return (y.index_put((torch.tensor([0, 0]),), x[:2], accumulate=True),)

    assert "exp.default" not in calls(after(expand_fills, function, X))


def test_a_fill_without_dimensions_is_a_constant():
    graph = after(expand_fills, lambda x: (torch.where(x > 0, x, torch.zeros(())),), X)
    assert calls(graph) == ["gt.Scalar", "where.self"]


def test_a_returned_fill_is_fresh():
    graph = after(expand_fills, lambda x: (torch.zeros_like(x), torch.ones(())), X)
    for a, b in zip(graph(X), graph(X), strict=True):
        assert a.data_ptr() != b.data_ptr()
        assert a.is_contiguous()


def test_a_fill_that_is_written_to_and_one_in_another_layout_stay():
    def function(x):
        y = torch.zeros_like(x)
        y.add_(1)
        return (y * 2, torch.ones_like(x.t()) * x.t())

    before = calls(graph_of(function, X))
    assert calls(after(expand_fills, function, X)) == before


def test_fills_keep_their_dtype():
    def function(x):
        return (x + torch.full((900,), 2, dtype=torch.int64), torch.full_like(x, 1) + 1)

    after(expand_fills, function, torch.arange(900))
    after(expand_fills, function, torch.zeros(900, dtype=torch.float32))


def test_the_log_of_a_truth_value_is_a_choice():
    x = with_special_values(7)
    graph = after(choose_logs_of_truth, lambda x: ((x == x).double().log(),), x)
    assert calls(graph) == ["eq.Tensor", "where.self"]


def test_other_logs_stay():
    def function(x):
        return (x.abs().double().log(), (x == x).float().double().log(), (x > 0).float().exp())

    before = calls(graph_of(function, X))
    assert calls(after(choose_logs_of_truth, function, X)) == before


def test_chains_of_expands_and_of_reshapes_are_one():
    def function(x):
        return (x.expand(4, 3).expand(2, 4, 3) + 1, x.view(3, 1).unsqueeze(0).view(1, 1, 3) + 1)

    names = calls(after(join_views, function, torch.randn(3)))
    assert names == ["expand.default", "add.Tensor", "view.default", "add.Tensor"]


def test_views_that_cannot_be_joined_stay():
    def function(x):
        y = x.expand(4, 3, 2)
        return (aten._unsafe_view.default(y.contiguous(), [24]), y.unsqueeze(1).expand(4, 5, 3, 2))

    before = calls(graph_of(function, torch.randn(3, 2)))
    assert calls(after(join_views, function, torch.randn(3, 2))) == before


def test_dead_code_goes_draws_and_inputs_stay():
    def function(x, y):
        x.exp().sort()
        torch.randn(3)
        torch.empty(3).uniform_()
        return (x + 1,)

    graph = after(lambda g: g, function, torch.randn(3), torch.randn(3))
    assert [c.split(".")[0] for c in calls(graph)] == ["randn", "empty", "uniform_", "add"]
    assert len(run(graph, [X, X])) == 2


def test_dead_constants_go():
    graph = graph_of(lambda x: (x + 1, torch.ones(3) + torch.tensor([1.0, 2.0, 3.0])), X)
    graph.graph.find_nodes(op="output")[0].args = ((graph.graph.find_nodes(op="placeholder")[0],),)
    drop_dead_code(graph)
    assert calls(graph) == []
    assert not dict(graph.named_buffers())
    assert not [name for name in vars(graph) if name.startswith("_tensor_constant")]
