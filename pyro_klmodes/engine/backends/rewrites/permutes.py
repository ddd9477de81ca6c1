"""Dimensions are permuted after the arithmetic, not before it.

Summing out a discrete site puts its few values last, and a compiler then makes them the innermost
loop, where a processor computes on 16 numbers at a time and has three. Left where they were, the
elements of a plate are innermost, as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pyro_klmodes.engine.graphs.operations import is_op, is_pointwise
from pyro_klmodes.engine.graphs.values import val

__all__ = ["permuted_after", "without_settled_layouts"]

aten = torch.ops.aten
_REDUCTIONS = (
    *(aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default),
    aten.logsumexp.default,
)


def without_settled_layouts(graph: Graph) -> None:
    """Drop copies that only settle a layout, and have views be reshapes, in place.

    A reshape is a view where it can be; nothing is written to, so it need not be one.

    Args:
        graph: changed in place.
    """
    for node in graph.nodes:
        if is_op(node, aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        if is_op(node, aten.clone.default):
            node.replace_all_uses_with(node.args[0], delete_user_cb=lambda u: u.op != "output")


def permuted_after(emit: Any, node: Node) -> Node | None:
    """``permute(f(x, permute(y)))`` for ``f(permute(x), y)``, sums likewise; None for all else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if is_pointwise(node) and not is_op(node, aten.clone.default):
        return _pointwise(emit, node)
    return _reduction(emit, node) if is_op(node, *_REDUCTIONS) else None


def _pointwise(emit: Any, node: Node) -> Node | None:
    orders = [_order(x) for x in node.all_input_nodes if _shape(x) == _shape(node)]
    order = next((o for o in orders if o is not None), None)
    if order is None:
        return None
    args = [_permuted(emit, x, _inverse(order)) for x in node.args]
    return emit(aten.permute.default, emit(node.target, *args, **node.kwargs), order)


def _reduction(emit: Any, node: Node) -> Node | None:
    arguments: tuple[Any, ...] = node.args
    source, dims, *rest = arguments
    order = _order(source)
    if order is None or not dims:
        return None
    dims = [d % len(order) for d in dims]
    before = [order[d] for d in dims]
    source = _permuted(emit, source, _inverse(order))
    few = emit(node.target, source, before, **{**node.kwargs, "keepdim": True})
    few = emit(aten.permute.default, few, order)
    keep = node.kwargs.get("keepdim", bool(rest and rest[0]))
    return few if keep else emit(aten.squeeze.dims, few, dims)


def _permuted(emit: Any, x: Any, order: Sequence[int]) -> Any:
    """An argument in another order of the result's dimensions, which it may broadcast to."""
    if not isinstance(x, Node) or not val(x).dim():
        return x
    while val(x).dim() < len(order):
        x = emit(aten.unsqueeze.default, x, 0)
    its = _order(x)
    if its is not None:
        x, order = x.args[0], [its[d] for d in order]
    if list(order) == sorted(order):
        return x
    return emit(aten.permute.default, x, list(order))


def _order(node: Node) -> list[int] | None:
    """Which dimension of its argument each dimension of a permutation is; None for other calls."""
    if not is_op(node, aten.permute.default, aten.transpose.int, aten.t.default):
        return None
    order = list(range(val(node).dim()))
    arguments: tuple[Any, ...] = node.args
    if is_op(node, aten.permute.default):
        return [d % len(order) for d in arguments[1]]
    if len(order) < 2:
        return order
    one, other = arguments[1:] if is_op(node, aten.transpose.int) else (0, 1)
    order[one], order[other] = order[other], order[one]
    return order


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(d) for d in range(len(order))]


def _shape(node: Node) -> tuple[int, ...] | None:
    value = val(node)
    return tuple(value.shape) if isinstance(value, Tensor) else None
