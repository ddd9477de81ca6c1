"""Which results are rows of a larger tensor, and many of its rows as one tensor."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["FEWEST", "Emit", "Row", "Source", "row_of", "source_of", "take"]

aten = torch.ops.aten
_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)

#: for fewer rows, taking them costs what it saves
FEWEST = 8

#: adds a call to a graph
Emit = Callable[..., Node]


class Row(NamedTuple):
    """A row ``batch[at]``."""

    batch: Node
    at: int


class Source(NamedTuple):
    """A row ``base.view(-1, *shape)[at]``."""

    base: Node
    shape: tuple[int, ...]
    at: int


class _Piece(NamedTuple):
    base: Node
    start: int


def source_of(node: Node) -> Source | None:
    """What a view is a row of; None if it is no view, or not of one row of many."""
    shape = tuple(val(node).shape) if isinstance(node.meta.get("val"), torch.Tensor) else None
    if shape is None:
        return None
    row = row_of(node)
    if row is not None:
        return Source(row.batch, shape, row.at)
    piece, size = _piece_of(node), math.prod(shape)
    if piece is None or size == 0 or not val(piece.base).is_contiguous():
        return None
    length = len(val(piece.base))
    if piece.start % size or length % size or length < FEWEST * size:
        return None
    return Source(piece.base, shape, piece.start // size)


def row_of(node: Node) -> Row | None:
    """The row that a call of ``select`` or ``unbind`` along the first dimension gives."""
    arguments: tuple[Any, ...] = node.args
    if is_op(node, aten.select.int) and arguments[1] == 0:
        return Row(arguments[0], arguments[2] % len(val(arguments[0])))
    if node.op == "call_function" and node.target is operator.getitem:
        parts, k = arguments
        if is_op(parts, aten.unbind.int) and parts.args[1:] in ((), (0,)):
            return Row(parts.args[0], k)
    return None


def _piece_of(node: Node) -> _Piece | None:
    """Of which vector a view is a piece."""
    while is_op(node, *_VIEWS):
        node = node.all_input_nodes[0]
    arguments: tuple[Any, ...] = node.args
    if is_op(node, aten.slice.Tensor) and len(arguments) >= 4:
        base, dim, start, _, *step = arguments
        in_order = dim == 0 and val(base).dim() == 1 and step in ([], [1])
        inside = isinstance(start, int) and 0 <= start < len(val(base))
        return _Piece(base, start) if in_order and inside else None
    if node.op == "call_function" and node.target is operator.getitem:
        parts, k = arguments
        if is_op(parts, aten.split_with_sizes.default) and val(parts.args[0]).dim() == 1:
            return _Piece(parts.args[0], sum(parts.args[1][:k]))
        if is_op(parts, aten.split.Tensor) and val(parts.args[0]).dim() == 1:
            return _Piece(parts.args[0], parts.args[1] * k)
    return None


def take(
    emit: Emit,
    constant: Callable[[torch.Tensor], Node],
    batch: Node,
    indices: Sequence[int],
) -> Node:
    """The rows with these indices, ``(len(indices), *shape)``.

    Args:
        emit: adds a call.
        constant: adds a constant.
        batch: of which rows.
        indices: which of them.
    """
    steps = {b - a for a, b in pairwise(indices)}
    step = next(iter(steps)) if len(steps) == 1 else 0
    if step > 0:
        start, stop = indices[0], indices[-1] + 1
        if (start, stop, step) == (0, len(val(batch)), 1):
            return batch
        return emit(aten.slice.Tensor, batch, 0, start, stop, step)
    return emit(aten.index_select.default, batch, 0, constant(torch.tensor(list(indices))))
