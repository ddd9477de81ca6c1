"""Indexing along one dimension has operations of its own, which are faster."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import calls_of, is_op
from pyro_klmodes.engine.graphs.values import add_call, same_layout, val

__all__ = ["use_one_index"]

aten = torch.ops.aten
_PUTS = (aten.index_put.default, aten._unsafe_index_put.default)
_WORTH_IT = 1024  # elements from which it pays to wrap negative indices first


def use_one_index(graph: GraphModule) -> GraphModule:
    """Replace ``x[..., i]`` by ``index_select`` and its gradient by ``scatter_add``, in place.

    For one vector of integers, as in ``a[county]``. These operations do not know negative
    indices, so those are wrapped first, which depends on data alone. Sums at equal indices are
    taken in the same order.
    """
    indexed = calls_of(graph.graph, aten.index.Tensor, *_PUTS)
    if not indexed:
        return graph
    aliases = Aliases(graph.graph)
    for node in indexed:
        if aliases.is_written(node) or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        if is_op(node, aten.index.Tensor):
            _select(graph, node)
        else:
            _add(graph, node)
    return graph


def _select(graph: GraphModule, node: Node) -> None:
    arguments: tuple[Any, ...] = node.args
    source, indices = arguments
    d = _only_dimension(indices)
    if d is None or val(node).numel() < _WORTH_IT:
        return
    at = _wrapped(graph, node, indices[d], val(source).shape[d])
    _exchange(node, add_call(graph.graph, node, aten.index_select.default, source, d, at))


def _add(graph: GraphModule, node: Node) -> None:
    arguments: tuple[Any, ...] = node.args
    base, indices, values, *accumulate = arguments
    d = _only_dimension(indices)
    if d is None or accumulate != [True] or d != val(base).dim() - 1:
        return
    shape = [*val(base).shape[:d], len(val(indices[d]))]
    if list(val(values).shape) != shape or val(values).numel() < _WORTH_IT:
        return
    at = _wrapped(graph, node, indices[d], val(base).shape[d])
    everywhere = add_call(graph.graph, node, aten.expand.default, at, shape)
    new = add_call(graph.graph, node, aten.scatter_add.default, base, d, everywhere, values)
    _exchange(node, new)


def _only_dimension(indices: Any) -> int | None:
    """The dimension that is indexed, if it is one and by a vector of integers."""
    given = [d for d, index in enumerate(indices) if index is not None]
    if len(given) != 1:
        return None
    index = val(indices[given[0]])
    return given[0] if index.dim() == 1 and index.dtype == torch.int64 else None


def _wrapped(graph: GraphModule, before: Node, index: Node, size: int) -> Node:
    """The same elements by indices that are not negative."""
    negative = add_call(graph.graph, before, aten.lt.Scalar, index, 0)
    shifted = add_call(graph.graph, before, aten.add.Tensor, index, size)
    return add_call(graph.graph, before, aten.where.self, negative, shifted, index)


def _exchange(node: Node, new: Node) -> None:
    if same_layout(val(new), val(node)):
        node.replace_all_uses_with(new)
