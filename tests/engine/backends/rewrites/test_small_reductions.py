"""Reductions of a few elements are written out."""

import pytest
import torch

from pyro_klmodes.engine.backends.rewrites.small_reductions import MOST_ELEMENTS, MOST_RESULTS
from tests.engine.backends.rewrites.rewritten import rewritten

REDUCTIONS = {"sum.dim_IntList", "amax.default", "all.dim", "logsumexp.default"}
X = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INF = float("inf")

FUNCTIONS = {
    "sum": lambda x, dim, keep: x.sum(dim, keepdim=keep),
    "largest": lambda x, dim, keep: x.amax(dim, keepdim=keep),
    "all": lambda x, dim, keep: (x > -0.5).all(dim, keepdim=keep),
    "logsumexp": lambda x, dim, keep: x.logsumexp(dim, keepdim=keep),
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_short_one_is_written_out(function, dim, keep):
    before, after = rewritten(lambda x: function(x, dim, keep), X)
    assert REDUCTIONS & set(before)
    assert not REDUCTIONS & set(after)


@pytest.mark.parametrize("function", [FUNCTIONS["largest"], FUNCTIONS["logsumexp"]])
def test_infinities_and_nan_keep_their_meaning(function):
    rows = [[-INF, -INF], [-INF, 1.0], [INF, 1.0], [INF, -INF], [float("nan"), 1.0], [800.0, -800]]
    _, after = rewritten(lambda x: function(x, 1, False), torch.tensor(rows, dtype=torch.float64))
    assert not REDUCTIONS & set(after)


def test_one_element():
    _, after = rewritten(lambda x: x.logsumexp(1), X[:, :1])
    assert not REDUCTIONS & set(after)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.new_zeros(2, MOST_ELEMENTS + 1).add(x[0, 0, 0]).sum(1),
        lambda x: x.new_zeros(MOST_RESULTS + 1, 2).add(x[0, 0, 0]).sum(1),
        lambda x: x.sum((0, 1)),
        lambda x: (x > 0).sum(1),
        lambda x: x[:, :0].sum(1),
        lambda x: x[0, 0, 0].sum(0),
    ],
    ids=["long", "many", "two dimensions", "truth values", "nothing", "a number"],
)
def test_others_are_left_to_the_compiler(function):
    before, after = rewritten(function, X)
    assert REDUCTIONS & set(before) == REDUCTIONS & set(after)
