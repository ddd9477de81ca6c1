"""Pointwise functions of repeated elements are computed on the elements themselves."""

import pytest
import torch

from pyro_klmodes.engine.graphs.operations import ignores_strides
from pyro_klmodes.engine.graphs.passes.sink_expands import sink_expands
from tests.engine.graphs.made import INTEGERS, after, aten, calls, graph_of

X = torch.rand(16, 1) + 0.5


def elements(graph, name):
    """How many elements the calls of an operation compute."""
    return [n.meta["val"].numel() for n in graph.graph.nodes if str(n.target) == f"aten.{name}"]


def test_a_chain_sinks_to_its_end():
    def function(x, y):
        return (x.expand(16, 900).log().neg() + y,)

    graph = after(sink_expands, function, X, torch.randn(16, 900))
    assert calls(graph) == ["log.default", "neg.default", "add.Tensor"]
    assert elements(graph, "log.default") == [16]


def test_numbers_and_two_repeated_arguments_sink():
    def function(x, y):
        return ((x.expand(16, 900) * 2 - y.expand(16, 900)) * torch.ones(900),)

    graph = after(sink_expands, function, X, X.clone())
    assert elements(graph, "sub.Tensor") == [16]


def test_arguments_repeated_along_different_axes_keep_their_size():
    def function(x, y):
        return (x.expand(16, 900) * y.expand(16, 900),)

    graph = after(sink_expands, function, X, torch.randn(900))
    assert calls(graph) == ["mul.Tensor"]  # broadcast by the operation itself
    assert elements(graph, "mul.Tensor") == [16 * 900]


def test_sums_add_the_same_bits_in_the_same_order():
    def function(x):
        return (x.expand(16, 900).log().sum(1), x.expand(16, 900).exp().view(4, -1).sum(0))

    graph = after(sink_expands, function, X)
    assert elements(graph, "log.default") == elements(graph, "exp.default") == [16]
    assert calls(graph).count("clone.default") == 2


def test_small_results_are_not_copied():
    def function(x):
        return (x.expand(16, 3).log().sum(1),)

    assert calls(after(sink_expands, function, X)) == [
        *("expand.default", "log.default", "sum.dim_IntList")
    ]


def test_a_number_that_takes_part_in_promotion_stays_expanded():
    number = torch.ones((), dtype=torch.float64)

    def function(x, y):
        return (x.expand(3) * y,)

    graph = after(sink_expands, function, number, torch.randn(3, dtype=torch.float32))
    assert calls(graph) == ["expand.default", "mul.Tensor"]


def test_what_is_returned_keeps_its_layout():
    graph = after(sink_expands, lambda x: (x.expand(16, 900).log(),), X)
    assert graph(X)[0].is_contiguous()


def test_functions_whose_bits_depend_on_the_layout_stay():
    def function(x):
        return (torch.nn.functional.softplus(x.expand(16, 900)) + torch.ones(16, 900),)

    assert elements(after(sink_expands, function, X), "softplus.default") == [16 * 900]


def test_scaled_sums_and_odd_powers_stay():
    def function(x, y):
        return (torch.add(x.expand(16, 900), y, alpha=0.3), x.expand(16, 900) ** 1.7 + y)

    y = torch.randn(16, 900)
    before = calls(graph_of(function, X, y))
    assert calls(after(sink_expands, function, X, y)) == before


UNARY = [
    *[
        "neg",
        "abs",
        "exp",
        "log",
        "log1p",
        "expm1",
        "sqrt",
        "reciprocal",
        "tanh",
        "lgamma",
        "digamma",
        "erf",
        "sin",
        "cos",
        "sign",
        "relu",
    ]
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", UNARY)
def test_an_element_has_the_same_bits_in_every_layout(name, dtype):
    operation = getattr(aten, name).default
    probe = graph_of(lambda x: (operation(x),), X)
    assert ignores_strides(next(n for n in probe.graph.nodes if n.target is operation))
    for n in (1, 3, 8, 17, 85):
        few = torch.randn(n, 1, dtype=dtype).mul_(3)
        for many in (few.expand(n, 33), few.expand(n, 33).contiguous(), few.expand(4, n, 2)):
            kind = INTEGERS[few.element_size()]
            expected = operation(few).expand(many.shape).contiguous()
            assert torch.equal(operation(many).contiguous().view(kind), expected.view(kind))


@pytest.mark.parametrize("power", [-2, -1, -0.5, 0.5, 1, 2, 3])
def test_powers_have_the_same_bits_in_every_layout(power):
    few = torch.rand(17, 1) + 0.1
    many = few.expand(17, 33)
    assert torch.equal(many**power, (few**power).expand(17, 33))
    assert torch.equal(many.contiguous() ** power, (few**power).expand(17, 33))
