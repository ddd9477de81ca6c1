"""Results are written where an argument was that nothing needs any more, and nowhere else."""

import pytest
import torch

from pyro_klmodes.engine.backends import build
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.passes.reuse_memory import reuse_memory
from tests.engine.graphs.made import after, calls, graph_of

X, Y = torch.randn(80, 90), torch.randn(90)


def in_place(function, *examples):
    """The operations that write to an argument; neither inputs nor values change."""
    before = [x.clone() for x in examples]
    graph = after(reuse_memory, function, *examples)
    assert all(torch.equal(x, y) for x, y in zip(before, examples, strict=True))
    return [name for name in calls(graph) if name.endswith("out")]


def test_a_chain_stays_in_one_place():
    def chain(x, y):
        z = ((y - (x * y)).exp() ** 2 / 3.0).neg()
        return (torch.where(z > 0, z, z.log1p()).sum(),)

    assert in_place(chain, X, Y) == [
        *("sub.out", "exp.out", "pow.Tensor_Scalar_out", "div.out", "neg.out", "where.self_out")
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (x + y,),  # inputs belong to others
        lambda x, y: (x.exp()[:40] + 1.0, x.exp()[40:] + 1.0),  # views of one result
        lambda x, y: ((x * y).reshape(90, 80).exp(),),
        lambda x, y: (torch.relu(x.exp()), y.exp()),  # too small, or not known
        lambda x, y: ((y * 2.0).expand(80, 90) + x,),  # nothing is there for all elements
    ],
)
def test_what_is_shared_is_left_alone(function):
    assert in_place(function, X, Y) == []


def test_what_is_needed_later_is_left_alone():
    def function(x, y):
        z = x * y
        return (z.exp() + z,)

    assert in_place(function, X, Y) == ["add.out"]


def test_what_is_returned_is_left_alone():
    def function(x, y):
        z = x * y
        return z, z.exp()

    assert in_place(function, X, Y) == []


def test_programs_take_it():
    def function(x, y):
        return (((x * y).exp() + 1.0).sum(-1),)

    expected = function(X, Y)
    program = build(reuse_memory(clean(graph_of(function, X, Y), [X, Y])), [X, Y], "graph")
    for _ in range(2):
        (found,) = program([X, Y])
        assert torch.equal(found, expected[0])
