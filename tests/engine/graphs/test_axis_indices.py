"""Indices that run along the axes are views, their gradients additions."""

import pytest
import torch

from pyro_klmodes.engine.graphs.passes.axis_indices import view_axis_indices
from pyro_klmodes.engine.graphs.passes.fold_constants import fold_constants
from tests.engine.graphs.made import after, calls


def whole(graph):
    return view_axis_indices(fold_constants(graph))


def grid(*sizes):
    return [
        torch.arange(n).reshape([-1 if i == j else 1 for j in range(len(sizes))])
        for i, n in enumerate(sizes)
    ]


def test_an_enumerated_index_is_a_view():
    z = torch.arange(3).reshape(3, 1)
    graph = after(whole, lambda mu, x: (x - mu[z],), torch.randn(3), torch.randn(3, 500))
    assert "index.Tensor" not in calls(graph)


def test_an_enumerated_index_with_particles_is_a_view():
    k, one, z = torch.arange(16).reshape(16, 1), torch.zeros(1, dtype=torch.int64), torch.arange(3)

    def function(mu, x):
        return (x - mu[k, one, z.reshape(3, 1, 1)],)

    graph = after(whole, function, torch.randn(16, 1, 3), torch.randn(3, 16, 500))
    assert "index.Tensor" not in calls(graph)


@pytest.mark.parametrize(
    "index",
    [
        [torch.tensor([0, 2, 1])],  # another order
        [torch.tensor([0, 1])],  # not all
        [torch.tensor([0, 1, 2, 0])],  # more than once
        [torch.tensor([-3, -2, -1])],
        [torch.arange(3).reshape(3, 1).expand(3, 2)],
        [torch.tensor([True, True, True])],
    ],
)
def test_other_indices_stay(index):
    graph = after(whole, lambda x: (x[index[0]] + 1,), torch.randn(3))
    assert "index.Tensor" in calls(graph)


def test_indices_that_share_an_axis_stay():
    i = torch.arange(3)
    graph = after(whole, lambda x: (x[i, i] + 1,), torch.randn(3, 3))
    assert "index.Tensor" in calls(graph)


@pytest.mark.parametrize(
    "take",
    [
        lambda x, i: x[:, i],
        lambda x, i: x[i],
        lambda x, i: x[:, i.reshape(3, 1)],
        lambda x, i: x[i.reshape(1, 3)],
        lambda x, i: x[:, :, i],
        lambda x, i: x[i.reshape(3, 1), :, i],
        lambda x, i: x[:, i.reshape(3, 1), i],
        lambda x, i: x[:, i, i.reshape(3, 1)],
    ],
)
def test_dimensions_without_an_index_keep_their_place(take):
    x = torch.randn(3, 3, 3)
    graph = after(whole, lambda x, y: (y * take(x, torch.arange(3)),), x, take(x, torch.arange(3)))
    assert "index.Tensor" not in calls(graph)


def test_dimensions_around_a_number_keep_their_place():
    zero = torch.zeros(1, 1, dtype=torch.int64)
    graph = after(whole, lambda x: (x[:, zero] + 1,), torch.randn(4, 1, 5))
    assert "index.Tensor" not in calls(graph)


def test_an_index_from_data_stays():
    graph = after(whole, lambda x, i: (x[i] + 1,), torch.randn(3), torch.arange(3))
    assert "index.Tensor" in calls(graph)


def test_a_returned_result_does_not_share_memory_with_its_source():
    x = torch.randn(3)
    graph = after(whole, lambda x: (x[torch.arange(3)],), x)
    assert graph(x)[0].data_ptr() != x.data_ptr()


def test_adding_at_such_indices_is_adding():
    i, j = grid(4, 3)

    def function(x, y):
        return (x.index_put((i, j), y, accumulate=True),)

    y = torch.randn(4, 3)
    y[0, 0] = -0.0
    assert calls(after(whole, function, torch.zeros(4, 3), y))[-1] == "add.Tensor"


def test_adding_with_the_axes_exchanged():
    i, j = torch.arange(4).reshape(1, 4), torch.arange(3).reshape(3, 1)

    def function(x, y):
        return (x.index_put((i, j), y, accumulate=True) * 2,)

    graph = after(whole, function, torch.randn(4, 3), torch.randn(3, 4))
    assert "index_put.default" not in calls(graph)


def test_writing_at_indices_and_adding_twice_stay():
    i, j = grid(4, 3)
    twice = torch.tensor([0, 0, 1])

    def function(x, y, z):
        return (x.index_put((i, j), y) + 1, x[:, 0].index_put((twice,), z, accumulate=True))

    graph = after(whole, function, torch.zeros(4, 3), torch.randn(4, 3), torch.randn(3))
    assert calls(graph).count("index_put.default") == 2
