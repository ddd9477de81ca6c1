"""What depends on constants alone is computed once, with torch's own dtypes."""

import torch

from pyro_klmodes.engine.graphs.passes.fold_constants import fold_constants
from tests.engine.graphs.made import after, calls, graph_of

C = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32)


def test_constants_are_folded():
    graph = after(fold_constants, lambda x: (x + C.log().cumsum(0) * 2,), torch.ones(3))
    assert calls(graph) == ["add.Tensor"]


def test_results_without_inputs_are_folded():
    graph = after(fold_constants, lambda x: (x[torch.arange(3) * 1],), torch.randn(3))
    assert calls(graph) == ["index.Tensor"]


def test_promotion_is_that_of_torch():
    def function(x):
        number = torch.tensor(0.1, dtype=torch.float64)
        return (x * (number + torch.tensor(1.0, dtype=torch.float32)),)

    for x in (torch.ones((), dtype=torch.float32), torch.ones(3, dtype=torch.float32)):
        assert calls(after(fold_constants, function, x)) == ["mul.Tensor"]


def test_random_numbers_are_not_constants():
    def function(x):
        return (x + torch.zeros(3).normal_() + torch.randn(3) * C + torch.bernoulli(C / 4),)

    kept = calls(after(fold_constants, function, torch.ones(3)))
    assert {"normal_.default", "randn.default", "bernoulli.default"} <= set(kept)


def test_uninitialised_memory_is_not_a_constant():
    def function(x):
        return (x + torch.empty(3).fill_(2.0),)

    assert calls(after(fold_constants, function, torch.ones(3)))[0] == "empty.memory_format"


def test_constants_that_are_written_to_are_not_folded():
    state = torch.zeros(3)

    def function(x):
        state.add_(1)
        return (x + state.exp(),)

    graph = graph_of(function, torch.ones(3))
    before = calls(graph)
    fold_constants(graph)
    assert calls(graph) == before


def test_repeated_elements_are_not_stored():
    def function(x):
        return (x + C.exp().unsqueeze(-1).expand(3, 1000),)

    graph = after(fold_constants, function, torch.ones(3, 1000))
    assert calls(graph) == ["expand.default", "add.Tensor"]
    assert sum(b.numel() for b in graph.buffers()) == 3


def test_large_results_are_left():
    graph = after(
        lambda g: fold_constants(g, max_elements=10),
        lambda x: (x + torch.arange(11),),
        torch.ones(11),
    )
    assert "arange" in calls(graph)[0]


def test_returned_constants_stay_fresh():
    graph = after(fold_constants, lambda x: (C + 1, x + (C + 1)), torch.ones(3))
    first, second = graph(torch.ones(3))[0], graph(torch.ones(3))[0]
    assert first.data_ptr() != second.data_ptr()


def test_parts_of_tuples_are_left_to_later():
    graph = after(fold_constants, lambda x: (x + C.sort()[0],), torch.ones(3))
    assert calls(graph)[-1] == "add.Tensor"
