"""Take out of a sum what is the same for all of its summands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.values import add_call, val

__all__ = ["factor_sums"]

aten = torch.ops.aten
_TIMES = (aten.mul.Tensor, aten.div.Tensor)
_PLUS = (aten.add.Tensor, aten.sub.Tensor)


def factor_sums(
    graph: GraphModule,  # as ``clean`` leaves it
) -> GraphModule:
    """Replace sums of ``x + t``, ``x - t``, ``x * t``, ``x / t`` and ``-x`` by sums of x, in place.

    That is where t has no element of its own for every summand: the scale of a Normal has none for
    every datum, and its logarithm is then added once, with all that is constant. Only sums that
    are results of the graph and keep their dimensions are looked at.

    Results differ by rounding. One that is infinite may be NaN without this pass, as 0 / 0 + 1 / 0
    is NaN, and (0 + 1) / 0 is infinite.
    """
    aliases = Aliases(graph.graph)
    for total in list(graph.graph.nodes):
        if not _is_result(total):
            continue
        while (taken := _taken_out(total, aliases)) is not None:
            inner, rest = taken
            few = add_call(graph.graph, total, total.target, inner, *total.args[1:])
            total.replace_all_uses_with(rest(few))
            drop_dead_code(graph)
            total = few
    graph.graph.lint()
    graph.recompile()
    return graph


def _is_result(node: Node) -> bool:
    if not is_op(node, aten.sum.dim_IntList) or len(node.args) != 3 or node.kwargs:
        return False
    if any(user.op != "output" for user in node.users):
        return False
    return node.args[2] is True and val(node).dtype.is_floating_point


def _taken_out(total: Node, aliases: Aliases) -> tuple[Node, Callable[[Node], Node]] | None:
    """What is to be summed instead, and what is to be done with the sum; None if there is nothing.

    A result that something else needs too is there anyway.
    """
    summand: Any = total.args[0]
    if len(summand.users) != 1 or summand.kwargs or not summand.args:
        return None
    inner = summand.args[0]
    if not isinstance(inner, Node) or aliases.is_written(inner):
        return None
    if is_op(summand, aten.neg.default):
        return inner, lambda few: add_call(few.graph, total, aten.neg.default, few)
    if not is_op(summand, *_TIMES, *_PLUS) or not _is_like(inner, summand):
        return None
    other: Any = summand.args[1]
    dims: Any = total.args[1]
    if isinstance(other, Node) and not _is_same_along(other, dims, val(summand).dim()):
        return None
    if is_op(summand, *_TIMES):
        return inner, lambda few: add_call(few.graph, total, summand.target, few, other)
    count = math.prod(val(summand).shape[d] for d in dims)

    def rest(few: Node) -> Node:
        times: Any = other * count if not isinstance(other, Node) else None
        if times is None:
            times = add_call(few.graph, total, aten.mul.Tensor, other, count)
        return add_call(few.graph, total, summand.target, few, times)

    return inner, rest


def _is_like(a: Node, b: Node) -> bool:
    return (val(a).shape, val(a).dtype) == (val(b).shape, val(b).dtype)


def _is_same_along(
    node: Node,
    dims: list[int],
    rank: int,  # of what the dimensions are those of
) -> bool:
    """Whether a result has no elements of its own along some dimensions, when it is broadcast."""
    x = val(node)
    places = [d % rank + x.dim() - rank for d in dims]
    return all(place < 0 or x.size(place) == 1 for place in places)
