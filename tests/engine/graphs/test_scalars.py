"""Constants without dimensions become numbers where torch computes the same."""

import pytest
import torch

from pyro_klmodes.engine.graphs.passes.fold_constants import fold_constants
from pyro_klmodes.engine.graphs.passes.scalars import inline_scalars
from tests.engine.graphs.made import after, calls, graph_of, with_special_values


def attributes(graph):
    return [n for n in graph.graph.nodes if n.op == "get_attr"]


def bare(function, *examples):
    """A graph in which constants are used as they are."""
    return after(lambda g: inline_scalars(fold_constants(g)), function, *examples)


def combine(operation, constant):
    return lambda x: (operation(x, constant),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "operation",
    [
        *(torch.add, torch.sub, torch.mul, torch.div, torch.lt, torch.ge, torch.eq),
        lambda x, c: c - x,
        lambda x, c: c * x,
        lambda x, c: c + x,
    ],
)
def test_a_constant_of_any_float_becomes_a_number(operation, dtype):
    x = with_special_values(50, dtype=dtype)
    for kind in (torch.float32, torch.float64):
        constant = torch.tensor(0.1, dtype=kind)
        assert not attributes(bare(combine(operation, constant), x))


def test_two_numbers_promote_to_double():
    constant = torch.tensor(0.1, dtype=torch.float64)
    graph = bare(lambda x: (x * constant, x < constant), torch.ones((), dtype=torch.float32))
    assert "mul.Tensor" in calls(graph)
    assert attributes(graph)


def test_what_has_no_number_on_the_left_stays():
    graph = bare(lambda x: (torch.tensor(2.0) / x,), torch.ones(3))
    assert attributes(graph)


def test_integers_and_truth_values_stay():
    graph = bare(lambda x: (x * torch.tensor(0.5), x.double() * torch.tensor(2)), torch.arange(3))
    assert len(attributes(graph)) == 2


def test_nan_and_constants_with_dimensions_stay():
    graph = bare(lambda x: (x + torch.tensor(torch.nan), x + torch.tensor([1.0])), torch.ones(3))
    assert len(attributes(graph)) == 2


def test_a_factor_stays():
    graph = graph_of(lambda x: (torch.add(x, torch.tensor(0.1), alpha=3),), torch.ones(3))
    before = calls(graph)
    assert calls(inline_scalars(graph)) == before
