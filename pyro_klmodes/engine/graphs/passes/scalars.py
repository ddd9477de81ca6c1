"""Constants without dimensions become numbers in the call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import constant, evaluate, same_layout, val

__all__ = ["inline_scalars"]

aten = torch.ops.aten
_SECOND = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
_COMPARISONS: dict[Any, OpOverload] = {
    getattr(aten, name).Tensor: getattr(aten, name).Scalar
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
_COMMUTE = (aten.add.Tensor, aten.mul.Tensor)


def inline_scalars(graph: GraphModule) -> GraphModule:
    """Write 0-dimensional floating constants into the calls that use them, in place.

    The number must survive the dtype of the other argument, in which torch computes, and the
    result must keep its dtype: a double constant on single-precision data is cast to single by
    torch as well, but two 0-dimensional tensors promote to double, which a number would not do.
    """
    for node in list(graph.graph.nodes):
        if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1:
            continue
        if is_op(node, *_SECOND):
            _inline(graph, node)
        elif is_op(node, *_COMPARISONS):
            _inline_comparison(graph, node)
    return graph


def _inline(graph: GraphModule, node: Node) -> None:
    left, right = node.args
    number = _number(graph, right, left)
    if number is not None:
        _exchange(node, node.target, (left, number))
        return
    number = _number(graph, left, right)
    if number is None:
        return
    if is_op(node, *_COMMUTE):
        _exchange(node, node.target, (right, number))
    elif is_op(node, aten.sub.Tensor):
        _exchange(node, aten.rsub.Scalar, (right, number))


def _inline_comparison(graph: GraphModule, node: Node) -> None:
    number = _number(graph, node.args[1], node.args[0])
    if number is not None:
        _exchange(node, _COMPARISONS[node.target], (node.args[0], number))


def _number(graph: GraphModule, node: Any, other: Any) -> float | None:
    """The value of a constant, if torch would compute with just that value."""
    if not isinstance(node, Node) or node.op != "get_attr" or not isinstance(other, Node):
        return None
    value: Tensor = constant(graph.graph, node)
    if value.dim() or value.dtype not in (torch.float32, torch.float64):
        return None
    if val(other).dtype not in (torch.float32, torch.float64) or bool(value.isnan()):
        return None
    return float(value.to(val(other).dtype))


def _exchange(node: Node, target: Any, args: tuple[Any, ...]) -> None:
    """Change a call, unless its result would be of another shape, dtype or layout."""
    if same_layout(evaluate(target, args, {}), val(node)):
        node.target, node.args = target, args
