"""What is the same for all summands is taken out of a sum."""

import pytest
import torch

from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.passes.factor_sums import factor_sums
from tests.engine.graphs.made import calls, graph_of


def factored(function, *examples):
    """The operations after the pass; its values are those of the function up to rounding."""
    graph = factor_sums(clean(graph_of(function, *examples), examples))
    for found, expected in zip(graph(*examples), function(*examples), strict=True):
        torch.testing.assert_close(found, expected)
    return calls(graph)


X, Y = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
COLUMN = torch.rand(4, 1, 1) + 0.5


def test_all_of_a_normal_log_density_but_the_squares_is_taken_out():
    def normal(x, y, scale):
        z = -((x - y) ** 2) / (2 * scale**2) - scale.log() - 0.5
        return (z.sum([-1, -2], keepdim=True),)

    found = factored(normal, X, Y, COLUMN)
    squares = ["sub.Tensor", "pow.Tensor_Scalar", "sum.dim_IntList"]
    rest = ["neg.default", "div.Tensor", "mul.Tensor", "sub.Tensor", "sub.Tensor"]
    of_scale = ["pow.Tensor_Scalar", "mul.Tensor", "log.default"]
    assert sorted(found) == sorted(squares + rest + of_scale)
    assert found.index("sum.dim_IntList") < found.index("neg.default") < found.index("div.Tensor")


@pytest.mark.parametrize(
    "of",
    [
        lambda x, t: x + t,
        lambda x, t: x - t,
        lambda x, t: x * t,
        lambda x, t: x / t,
        lambda x, t: -x,
        lambda x, t: x + 3.0,
        lambda x, t: x - t[0, 0],
    ],
)
def test_a_thin_argument_is_taken_out(of):
    found = factored(lambda x, t: (of(x, t).sum([1, 2], keepdim=True),), X, COLUMN)
    assert next(name for name in found if name.startswith(("sum", "neg"))).startswith("sum")
    assert found[-1] != "sum.dim_IntList"


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: ((x + y).sum(-1, keepdim=True),),  # y has elements of its own
        lambda x, y: ((x + y[..., :1]).sum(-1),),  # it would have other dimensions
        lambda x, y: ((x / y[..., :1]).sum(-1, keepdim=True).exp(),),  # its infinities would go on
        lambda x, y: ((x + y[..., :1]).sum([-1, -2], keepdim=True),),  # y varies along one of two
        lambda x, y: ((y[..., :1] - x).sum(-1, keepdim=True),),
        lambda x, y: (torch.add(x, y[..., :1], alpha=2.0).sum(-1, keepdim=True),),
        lambda x, y: ((x[:, :1] * y[..., :1]).sum(-1, keepdim=True),),
    ],
)
def test_anything_else_stays_inside(function):
    graph = clean(graph_of(function, X, Y), [X, Y])
    before = calls(graph)
    assert calls(factor_sums(graph)) == before


def test_a_result_that_is_needed_anyway_is_summed_as_it_is():
    def function(x, t):
        shifted = x - t
        return shifted.sum(-1, keepdim=True), shifted.exp()

    assert factored(function, X, COLUMN)[:2] == ["sub.Tensor", "sum.dim_IntList"]
