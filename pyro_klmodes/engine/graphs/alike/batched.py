"""What an operation on a row becomes when it is done on many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from pyro_klmodes.engine.graphs.alike.rows import Emit
from pyro_klmodes.engine.graphs.operations import is_pointwise
from pyro_klmodes.engine.graphs.values import val

__all__ = ["can_be_batched", "on_rows"]

aten = torch.ops.aten
_RESHAPES = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
_ALONG = (aten.unsqueeze.default, aten.squeeze.dim, aten.slice.Tensor, aten.select.int)
_REDUCTIONS = (aten.sum.default, aten.all.default)
_OTHERS = (*_RESHAPES, *_ALONG, *_REDUCTIONS, aten.expand.default, aten.sum.dim_IntList)


def can_be_batched(node: Node) -> bool:
    """Whether it is known what a call is on many rows."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    direct = [x for x in node.args if isinstance(x, Node)]  # no lists of tensors
    if len(set(direct)) != len(node.all_input_nodes):
        return False
    return is_pointwise(node) or node.target in _OTHERS


def on_rows(
    emit: Emit,
    node: Node,
    args: Sequence[Any],
    many: Sequence[bool],
) -> Node | None:
    """The call on many rows; None if it cannot be had.

    Args:
        emit: adds a call.
        node: the call on one row.
        args: its arguments, with tensors of rows in the place of rows.
        many: which arguments are these.
    """
    shape, target = val(node).shape, node.target
    if is_pointwise(node):
        if not _one_dtype(node):
            return None
        aligned = [
            _aligned(emit, x, len(shape)) if rows else x for x, rows in zip(args, many, strict=True)
        ]
        return emit(target, *aligned, **node.kwargs)
    rows, *rest = args
    count = len(val(rows))
    if target in _RESHAPES:
        return _reshaped(emit, rows, [count, *shape])
    if target is aten.expand.default:
        return emit(target, _aligned(emit, rows, len(shape)), [count, *shape])
    if target in _ALONG:
        dim, *more = rest or [0]
        return emit(target, rows, _behind(dim), *more)
    if target is aten.sum.dim_IntList:
        dims, *keep = rest
        return emit(target, rows, [_behind(d) for d in dims], *keep) if dims else None
    return _reduced(emit, target, rows)


def _reduced(emit: Emit, target: Any, rows: Node) -> Node | None:
    """Every row to a single element."""
    value = val(rows)
    if target is aten.sum.default and not value.is_floating_point():
        return None
    if target is aten.all.default and value.dtype != torch.bool:
        return None
    if value.dim() == 1:
        return rows
    flat = _reshaped(emit, rows, [len(value), value[0].numel()])
    if target is aten.sum.default:
        return emit(aten.sum.dim_IntList, flat, [1])
    return emit(aten.all.dim, flat, 1)


def _reshaped(emit: Emit, rows: Node, shape: list[int]) -> Node:
    return emit(
        aten.view.default if val(rows).is_contiguous() else aten.reshape.default, rows, shape
    )


def _aligned(emit: Emit, rows: Node, dims: int) -> Node:
    """Rows with dimensions of size one in front, so that they broadcast as single rows do."""
    while val(rows).dim() - 1 < dims:
        rows = emit(aten.unsqueeze.default, rows, 1)
    return rows


def _behind(dim: int) -> int:
    return dim if dim < 0 else dim + 1


def _one_dtype(node: Node) -> bool:
    """Whether no tensor is promoted: a row without dimensions would be, where many are not."""
    found = {val(n).dtype for n in node.all_input_nodes} - {torch.bool}
    return len(found) <= 1
