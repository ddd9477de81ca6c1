"""Indexing by one vector, forwards and backwards, gives the same bits by faster operations."""

import pytest
import torch

from pyro_klmodes.engine.graphs.passes.one_index import use_one_index
from tests.engine.graphs.made import after, aten, calls

put = aten.index_put.default
INDEX = torch.randint(-85, 85, (900,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_taking_and_adding_along_the_last_dimension(dtype):
    def function(x, y, i):
        return x[:, i].exp(), put(x, [None, i], y, True)

    x, y = torch.randn(16, 85, dtype=dtype), torch.randn(16, 900, dtype=dtype)
    names = calls(after(use_one_index, function, x, y, INDEX))
    assert "index_select.default" in names
    assert "scatter_add.default" in names
    assert not any(n.startswith(("index.", "index_put.")) for n in names)


def test_a_vector_is_indexed_too():
    def function(x, y, i):
        return x[i], put(x, [i], y, True)

    index = torch.randint(-85, 85, (2000,))
    names = calls(after(use_one_index, function, torch.randn(85), torch.randn(2000), index))
    assert not any(n.startswith(("index.", "index_put.")) for n in names)


def test_values_in_another_layout_are_added_in_the_same_order():
    def function(x, y, i):
        first = put(x, [None, i], y.t(), True)
        return first, put(x, [None, i], y[:1].t().expand(16, 900), True)

    after(use_one_index, function, torch.randn(16, 85), torch.randn(900, 16), INDEX)


def test_out_of_range_is_still_an_error():
    graph = after(use_one_index, lambda x, i: (x[:, i],), torch.randn(16, 85), INDEX)
    for wrong in (85, -86):
        with pytest.raises((IndexError, RuntimeError), match="out of"):
            graph(torch.randn(16, 85), torch.full((900,), wrong))


@pytest.mark.parametrize(
    "take",
    [
        lambda x, i: x[i, i],  # two dimensions
        lambda x, i: x[:, i.view(30, 30)],  # not a vector
        lambda x, i: x[:, i > 0],
        lambda x, i: x[:2, i[:3]],  # few elements
        lambda x, i: put(x, [None, i], x[:, i]),  # written, not added
        lambda x, i: put(x, [i], x[i], True),  # along the first dimension
        lambda x, i: put(x, [None, i], x[:, 0], True),  # one value for all
    ],
)
def test_other_indexing_stays(take):
    graph = after(use_one_index, lambda x, i: (take(x, i),), torch.randn(900, 900), INDEX)
    assert any(c.startswith(("index.", "index_put.")) for c in calls(graph))
