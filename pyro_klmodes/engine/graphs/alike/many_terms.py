"""Sums, conjunctions and concatenations of many rows of a tensor, from the tensor itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.alike.rows import FEWEST, Row, row_of, take
from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import add_call, add_constant, val

__all__ = ["join_many_terms"]

aten = torch.ops.aten
_FLAT = (aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.unsqueeze.default)


def join_many_terms(graph: GraphModule) -> GraphModule:
    """Replace chains of additions and conjunctions by reductions, and pieces by tensors, in place.

    Terms are added in another order.

    Args:
        graph: as ``merge_alike`` leaves it.
    """
    for node in list(graph.graph.nodes):
        if (_is_sum(node) or _is_conjunction(node)) and not _is_link(node):
            _join(graph, node)
        elif is_op(node, aten.cat.default) and node.args[1:] in ((), (0,)):
            _concatenate(graph, node)
    return graph


def _is_sum(node: Node) -> bool:
    """Whether a node adds tensors of its own shape and dtype."""
    plain = is_op(node, aten.add.Tensor) and len(node.args) == 2 and not node.kwargs
    return plain and val(node).is_floating_point() and _terms_are_alike(node)


def _is_conjunction(node: Node) -> bool:
    return is_op(node, aten.bitwise_and.Tensor) and (
        val(node).dtype == torch.bool and _terms_are_alike(node)
    )


def _terms_are_alike(node: Node) -> bool:
    like = val(node)
    return all(
        isinstance(x, Node) and (val(x).shape, val(x).dtype) == (like.shape, like.dtype)
        for x in node.args
    )


def _is_link(node: Node) -> bool:
    """Whether a node is only there to be a term of another one of its kind."""
    users = list(node.users)
    return (
        len(users) == 1
        and users[0].target is node.target
        and (_is_sum(users[0]) or _is_conjunction(users[0]))
    )


def _leaves(root: Node) -> Iterator[Node]:
    """The terms of a chain, from left to right."""
    left: list[Any] = list(reversed(root.args))
    while left:
        node = left.pop()
        kind = _is_sum(node) if _is_sum(root) else _is_conjunction(node)
        if kind and _is_link(node):
            left.extend(reversed(node.args))
        else:
            yield node


def _join(graph: GraphModule, root: Node) -> None:
    """The rows among the terms of a chain at once, then the others."""
    rows: dict[Node, list[int]] = defaultdict(list)
    others: Counter[Node] = Counter()
    for leaf in _leaves(root):
        row = row_of(leaf)
        if row is None:
            others[leaf] += 1
        else:
            rows[row.batch].append(row.at)
    if max([*map(len, rows.values()), *others.values()]) < FEWEST:
        return
    emit: Any = partial(add_call, graph.graph, root)
    terms = [
        term
        for batch, indices in rows.items()
        for term in _of_rows(graph, root, batch, sorted(indices))
    ]
    for leaf, count in others.items():
        repeated = count > 1 and _is_sum(root)
        terms.append(emit(aten.mul.Scalar, leaf, count) if repeated else leaf)
    total = terms[0]
    for term in terms[1:]:
        total = emit(root.target, total, term)
    root.replace_all_uses_with(total)


def _of_rows(graph: GraphModule, root: Node, batch: Node, indices: list[int]) -> list[Node]:
    """Many rows in one reduction, few one by one."""
    emit: Any = partial(add_call, graph.graph, root)
    if len(indices) < FEWEST:
        return [emit(aten.select.int, batch, 0, i) for i in indices]
    rows = take(emit, partial(add_constant, graph.graph, root), batch, indices)
    if _is_sum(root):
        return [emit(aten.sum.dim_IntList, rows, [0])]
    return [emit(aten.all.dim, rows, 0)]


def _concatenate(graph: GraphModule, node: Node) -> None:
    """Runs of single numbers that are rows, by one index into all that they are rows of."""
    arguments: tuple[Any, ...] = node.args
    runs = [list(run) for _, run in groupby(arguments[0], key=lambda x: _number(x) is not None)]
    if all(len(run) < FEWEST or _number(run[0]) is None for run in runs):
        return
    pieces: list[Node] = []
    for run in runs:
        numbers = [found for found in map(_number, run) if found is not None]
        pieces += [_gathered(graph, node, numbers)] if len(numbers) >= FEWEST else run
    new = add_call(graph.graph, node, aten.cat.default, pieces)
    if val(new).dtype == val(node).dtype:
        node.replace_all_uses_with(new)


def _number(piece: Node) -> Row | None:
    """Of which tensor of numbers a tensor of one element is an element."""
    if val(piece).shape != (1,):
        return None
    row = row_of(piece)
    if row is None and is_op(piece, *_FLAT):
        row = row_of(piece.all_input_nodes[0])
    return row if row is not None and val(row.batch).numel() == len(val(row.batch)) else None


def _gathered(graph: GraphModule, before: Node, numbers: Sequence[Row]) -> Node:
    """A vector of these numbers."""
    emit: Any = partial(add_call, graph.graph, before)
    batches = list(dict.fromkeys(row.batch for row in numbers))
    starts = dict(zip(batches, accumulate((len(val(b)) for b in batches), initial=0), strict=False))
    flat = [emit(aten.reshape.default, b, [len(val(b))]) for b in batches]
    joined = flat[0] if len(flat) == 1 else emit(aten.cat.default, flat)
    indices = [starts[row.batch] + row.at for row in numbers]
    return take(emit, partial(add_constant, graph.graph, before), joined, indices)
