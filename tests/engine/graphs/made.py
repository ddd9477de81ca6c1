"""Graphs for tests, and what tests ask of them."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.values import refresh

aten = torch.ops.aten
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def graph_of(function, *examples):
    """The graph of a function that returns a tuple of tensors, with shapes known."""
    graph = make_fx(function)(*examples)
    refresh(graph, examples)
    return graph


def after(one_pass, function, *examples):
    """The graph of a function after one pass and without dead code; its values are checked."""
    graph = graph_of(function, *examples)
    expected = run(graph, examples)
    graph = drop_dead_code(one_pass(graph))
    graph.graph.lint()
    graph.recompile()
    assert_same(run(graph, examples), expected)
    return graph


def run(graph, examples, seed=0):
    """Outputs and the generator's state afterwards."""
    torch.manual_seed(seed)
    return [*graph(*examples), torch.get_rng_state()]


def assert_same(found, expected):
    """The same bits, also of NaN and of zeros with a sign, in the same layout."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.stride() == b.stride()
        kind = INTEGERS[a.element_size()]
        assert torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


def calls(graph):
    """The operations of a graph, in order, without their namespace."""
    return [
        str(n.target).removeprefix("aten.") for n in graph.graph.nodes if n.op == "call_function"
    ]


def with_special_values(*shape, dtype=torch.float64):
    """Random numbers, and zeros of both signs, infinities and NaN among them."""
    x = torch.randn(shape, dtype=dtype)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    x.view(-1)[: len(special)] = special[: x.numel()]
    return x
