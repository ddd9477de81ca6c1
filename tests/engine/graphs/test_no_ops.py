"""Calls that give back what they are given disappear; those that change a bit stay."""

import pytest
import torch

from pyro_klmodes.engine.graphs.passes.no_ops import remove_no_ops
from tests.engine.graphs.made import after, aten, calls, graph_of, run, with_special_values

NEVER = torch.zeros(7) > 1
GONE = {
    "detach": lambda x: x.detach(),
    "alias": lambda x: aten.alias.default(x),
    "expand": lambda x: x.expand(7),
    "view": lambda x: aten.view.default(x, [7]),
    "times one": lambda x: x * 1,
    "times 1.0": lambda x: x * 1.0,
    "over one": lambda x: x / 1,
    "minus zero": lambda x: x - 0.0,
    "minus integer zero": lambda x: x - 0,
    "plus negative zero": lambda x: x + -0.0,
    "power one": lambda x: aten.pow.Tensor_Scalar(x, 1.0),
    "negated twice": lambda x: x.neg().neg(),
    "cat of one": lambda x: torch.cat([x]),
    "clone": lambda x: x.clone(),
    "to the same dtype": lambda x: aten._to_copy.default(x, dtype=x.dtype),
    "permute": lambda x: aten.permute.default(x, [0]),
    "slice": lambda x: aten.slice.Tensor(x, 0, 0, 7),
    "choice by a truth": lambda x: torch.where(torch.tensor(True), x, torch.tensor(0.0).to(x)),
    "choice by an untruth": lambda x: torch.where(NEVER, torch.tensor(0.0).to(x), x),
}
STAYS = {
    "plus zero": lambda x: x + 0.0,
    "minus negative zero": lambda x: x - -0.0,
    "times minus one": lambda x: x * -1,
    "another dtype": lambda x: aten._to_copy.default(x, dtype=torch.float16),
    "a factor": lambda x: torch.add(x, 0.5, alpha=0.0),
    "expand to more": lambda x: x.expand(2, 7),
    "a sum of one": lambda x: x.view(7, 1).sum(1),
    "flip": lambda x: x.flip(0),
    "a choice that is open": lambda x: torch.where(torch.arange(7) > 3, x, 2 * x),
    "a choice of more": lambda x: torch.where(torch.ones(2, 7) > 0, x, 2 * x),
    "all of integers": lambda x: (x[0] * 0 + 3).to(torch.uint8).all(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GONE)
def test_a_no_op_disappears(name, dtype):
    x = with_special_values(7, dtype=dtype)
    graph = after(remove_no_ops, lambda x: (GONE[name](x).cos(),), x)
    assert calls(graph) == ["cos.default"]


@pytest.mark.parametrize("name", STAYS)
def test_what_changes_a_bit_stays(name):
    x = with_special_values(7)
    before = calls(graph_of(lambda x: (STAYS[name](x).cos(),), x))
    assert calls(after(remove_no_ops, lambda x: (STAYS[name](x).cos(),), x)) == before


@pytest.mark.parametrize("positive", [torch.exp, torch.abs, torch.nn.functional.softplus])
def test_zero_is_added_for_nothing_where_no_negative_zero_can_be(positive):
    graph = after(remove_no_ops, lambda x: ((positive(x) + 0.0).cos(),), with_special_values(7))
    assert len(calls(graph)) == 2


def test_zero_is_added_to_integers_for_nothing():
    assert calls(after(remove_no_ops, lambda x: ((x + 0).abs(),), torch.arange(3))) == [
        "abs.default"
    ]


def test_promotion_is_not_lost():
    x = torch.arange(4)
    assert calls(after(remove_no_ops, lambda x: (x * 1.0, x / 1, x - 0.0), x)) == [
        *("mul.Tensor", "div.Tensor", "sub.Tensor")
    ]


def test_a_copy_that_is_returned_stays_a_copy():
    x = torch.randn(3)
    graph = after(remove_no_ops, lambda x: (x.clone(), x * 1), x)
    assert calls(graph) == ["clone.default", "mul.Tensor"]
    assert all(a.data_ptr() != x.data_ptr() for a in run(graph, [x])[:2])


def test_two_outputs_do_not_come_to_share_memory():
    graph = after(remove_no_ops, lambda x: ((y := x.exp()), y * 1), torch.randn(3))
    a, b, _ = run(graph, [torch.randn(3)])
    assert a.data_ptr() != b.data_ptr()


def test_a_copy_of_an_intermediate_result_may_go_although_it_is_returned():
    assert calls(after(remove_no_ops, lambda x: (x.exp().clone(),), torch.randn(3))) == [
        "exp.default"
    ]


def test_a_copy_that_changes_the_layout_stays():
    def function(x):
        return (x.t().clone(memory_format=torch.contiguous_format).view(-1),)

    assert "clone.default" in calls(after(remove_no_ops, function, torch.randn(2, 3)))


def test_a_copy_of_what_is_written_to_stays():
    def function(x):
        y = x.exp()
        z = y.clone()
        y.add_(1)
        return (z.cos(), y.sin())

    assert "clone.default" in calls(after(remove_no_ops, function, torch.randn(3)))


def test_what_always_holds_takes_no_part_in_a_conjunction():
    true, false = torch.tensor(True), torch.tensor(False)

    def function(x):
        good = (x > 0).all()
        return (good & true & good.all(), good & false, (x > 0) & true)

    graph = after(remove_no_ops, function, torch.randn(3))
    assert [c.split(".")[0] for c in calls(graph)] == [
        *("gt", "all", "bitwise_and", "bitwise_and", "gt")
    ]
