"""The same thing is computed once, but never the same draw."""

import torch

from pyro_klmodes.engine.graphs.passes.common_subexpressions import merge_common_subexpressions
from tests.engine.graphs.made import after, aten, calls, run


def test_repeated_calls_are_merged():
    graph = after(merge_common_subexpressions, lambda x: (x.exp() + x.exp(),), torch.randn(3))
    assert calls(graph) == ["exp.default", "add.Tensor"]


def test_whole_chains_and_tuples_are_merged():
    def function(x):
        return (x.exp().sort()[0] + x.exp().sort()[0],)

    assert (
        calls(after(merge_common_subexpressions, function, torch.randn(3))).count("sort.default")
        == 1
    )


def test_equal_constants_are_merged():
    def function(x):
        return (x + torch.tensor([1.0, 2.0]) * torch.tensor([1.0, 2.0]),)

    graph = after(merge_common_subexpressions, function, torch.randn(2))
    assert len(list(graph.buffers())) + len(graph._parameters) <= 1


def test_constants_that_differ_in_a_bit_are_not_merged():
    def function(x):
        return (x / torch.tensor(0.0) + x / torch.tensor(-0.0), x + torch.tensor(1))

    graph = after(merge_common_subexpressions, function, torch.randn(2))
    assert len([n for n in graph.graph.nodes if n.op == "get_attr"]) == 3


def test_numbers_that_compare_equal_are_told_apart():
    def function(x):
        return x * 1, x * 1.0, x * True, x + 0.0, x + -0.0

    assert len(calls(after(merge_common_subexpressions, function, torch.arange(3)))) == 5


def test_draws_are_never_merged():
    def function(x):
        a = torch.randn(3) + torch.randn(3)
        b = torch.bernoulli(x) + torch.bernoulli(x)
        c = torch.empty(3).normal_() + torch.empty(3).normal_()
        d = torch._standard_gamma(x) + torch._standard_gamma(x)
        e = aten.native_dropout(x, 0.5, True)[0] + aten.native_dropout(x, 0.5, True)[0]
        return (a + b + c + d + e,)

    x = torch.rand(3)
    graph = after(merge_common_subexpressions, function, x)
    names = calls(graph)
    for name in ("randn", "bernoulli", "normal_", "_standard_gamma", "native_dropout"):
        assert sum(n.startswith(f"{name}.") for n in names) == 2


def test_two_outputs_do_not_come_to_share_memory():
    graph = after(merge_common_subexpressions, lambda x: (x.exp(), x.exp()), torch.randn(3))
    a, b, _ = run(graph, [torch.randn(3)])
    assert a.data_ptr() != b.data_ptr()


def test_an_output_may_serve_inside():
    graph = after(merge_common_subexpressions, lambda x: (x.exp(), x.exp().cos()), torch.randn(3))
    assert calls(graph) == ["exp.default", "cos.default"]


def test_what_is_written_to_later_is_not_merged():
    def function(x):
        y, z = x.exp(), x.exp()
        y.add_(1)
        return (y.cos(), z.cos())

    assert (
        calls(after(merge_common_subexpressions, function, torch.randn(3))).count("exp.default")
        == 2
    )
