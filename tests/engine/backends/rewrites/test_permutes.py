"""Permutations are taken after the arithmetic; what is computed stays the same."""

import pytest
import torch

from tests.engine.backends.rewrites.rewritten import rewritten
from tests.engine.graphs.made import with_special_values

PERMUTES = {"permute.default", "transpose.int", "t.default"}
X = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
ELEMENTS = {
    "one argument": lambda x, y: x.permute(0, 2, 1).exp(),
    "a number": lambda x, y: 2 - x.transpose(1, 2) * 3,
    "another tensor": lambda x, y: x.transpose(-1, -2) * y,
    "both permuted alike": lambda x, y: x.permute(2, 0, 1) * x.exp().permute(2, 0, 1),
    "both, differently": lambda x, y: x.permute(2, 1, 0) * y.permute(1, 2, 0),
    "fewer dimensions": lambda x, y: x.permute(0, 2, 1) + y[0, 0],
    "broadcast": lambda x, y: x.permute(0, 2, 1) / y[:, :1],
    "no dimension": lambda x, y: x.permute(2, 1, 0) * y[0, 0, 0],
    "three arguments": lambda x, y: torch.where(x.permute(0, 2, 1) > y, y, x.permute(0, 2, 1)),
    "of a matrix": lambda x, y: x[0].t().sin(),
    "of a vector": lambda x, y: x[0, 0].t().sin(),
    "chained": lambda x, y: ((x.permute(1, 2, 0) + 1).permute(2, 1, 0) * y).exp(),
}
REDUCTIONS = {
    "sum": lambda x: x.sum(2),
    "several": lambda x: x.sum((0, -1)),
    "kept": lambda x: x.sum(1, keepdim=True),
    "mean": lambda x: x.mean(1),
    "maximum": lambda x: x.amax(-1),
    "minimum": lambda x: x.amin((1, 2), keepdim=True),
    "logsumexp": lambda x: x.logsumexp(2),
    "all": lambda x: x.sum(()),
    "counted": lambda x: (x > 0).sum(1),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements(name):
    _, after = rewritten(lambda x, y: ELEMENTS[name](x, y).square(), X, Y)
    last = max((i for i, c in enumerate(after) if c in PERMUTES), default=-1)
    assert after.index("pow.Tensor_Scalar") < last or last == -1


def test_a_view_of_the_result_may_become_a_copy():
    _, after = rewritten(lambda x, y: (y + x.permute(0, 2, 1)).view(20, 3).exp(), X, Y)
    assert after[:5] == [
        "permute.default",  # of y
        *("add.Tensor", "permute.default", "reshape.default", "exp.default"),
    ]


def test_few_elements_that_are_broadcast_afterwards_are_permuted_first():
    _, after = rewritten(lambda x, y: x[:1].permute(0, 2, 1) + y, X, Y)
    assert after[:3] == ["slice.Tensor", "permute.default", "add.Tensor"]


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, order):
    before, after = rewritten(lambda x: REDUCTIONS[name](x.permute(order)), X)
    assert before[0] == "permute.default"
    assert after[0] != "permute.default" or name == "all"


def test_infinities_and_nan_stay_where_they_are():
    x = with_special_values(4, 3, 5)
    rewritten(lambda x, y: (x.permute(0, 2, 1) * y).logsumexp(-1), x, Y)


def test_what_is_returned_may_still_be_an_input():
    _, after = rewritten(lambda x: x.permute(0, 2, 1).clone(), X)
    assert "permute.default" in after
