"""Indexing that takes every element once, along the axes, is a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.layouts import redirect
from pyro_klmodes.engine.graphs.operations import calls_of, is_op
from pyro_klmodes.engine.graphs.values import add_call, constant, same_layout, val

__all__ = ["view_axis_indices"]

aten = torch.ops.aten
_PUTS = (aten.index_put.default, aten._unsafe_index_put.default)


def view_axis_indices(graph: GraphModule) -> GraphModule:
    """Replace ``x[arange(n), ...]`` with constant indices by a permuted view, in place.

    Each dimension must have an index that runs through it in order along an axis of the result
    of its own, as in ``mu[..., z]`` for an enumerated z. The gradient, which adds up values at
    such indices, becomes an addition.
    """
    indexed = calls_of(graph.graph, aten.index.Tensor, *_PUTS)
    if not indexed:
        return graph
    aliases = Aliases(graph.graph)
    for node in indexed:
        if aliases.is_written(node):
            continue
        if is_op(node, aten.index.Tensor):
            axes = _axes(graph, node.args[0], node.args[1])
            if axes is not None:
                redirect(node, _permuted(graph, node, node.args[0], axes))
        else:
            _add_values(graph, node)
    return graph


@dataclass(frozen=True)
class _Axes:
    """Along which axis of the result each dimension runs; None for a dimension of one element."""

    of: tuple[int | None, ...]
    shape: tuple[int, ...]  # of the result


def _axes(graph: GraphModule, source: Node, indices: Any) -> _Axes | None:
    """What the indices of a call mean, or None if they are not of this kind."""
    sizes = tuple(val(source).shape)
    given = [*indices, *[None] * (len(sizes) - len(indices))]
    at = [d for d, i in enumerate(given) if i is not None]
    if not at or not all(_is_constant(given[d]) for d in at):
        return None
    values = {d: constant(graph.graph, given[d]) for d in at}
    joint = torch.broadcast_shapes(*(v.shape for v in values.values()))
    # The joint axes of the indices take the place of the indexed dimensions, or come first.
    start = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    whole = iter([*range(start), *range(start + len(joint), len(sizes) - len(at) + len(joint))])
    found: list[int | None] = []
    for d, size in enumerate(sizes):
        if d not in values:
            found.append(next(whole))
        elif size == 1 and not bool(values[d].any()):
            found.append(None)
        else:
            axis = _runs_along(values[d], size, joint)
            if axis is None or start + axis in found:
                return None
            found.append(start + axis)
    kept = {a: sizes[d] for d, a in enumerate(found) if a is not None}
    shape = [
        *(
            joint[a - start] if start <= a < start + len(joint) else kept[a]
            for a in range(len(sizes) - len(at) + len(joint))
        )
    ]
    covered = all(a in kept or shape[a] == 1 for a in range(len(shape)))
    return _Axes(tuple(found), tuple(shape)) if covered else None


def _is_constant(index: Any) -> bool:
    dtype_known = isinstance(index, Node) and index.op == "get_attr"
    return dtype_known and val(index).dtype == torch.int64


def _runs_along(value: Tensor, size: int, shape: tuple[int, ...]) -> int | None:
    """The axis along which an index is 0, 1, ..., size - 1, constant along all others."""
    if value.numel() != size or not torch.equal(value.reshape(-1), torch.arange(size)):
        return None
    (axis,) = [i for i, s in enumerate(value.shape) if s == size] or (None,)
    if axis is None:
        return None
    axis += len(shape) - value.dim()
    return axis if shape[axis] == size else None


def _permuted(graph: GraphModule, before: Node, source: Node, axes: _Axes) -> Node:
    """The source with its dimensions put along the axes of the result."""
    ones = [d for d, a in enumerate(axes.of) if a is None]
    order = [axes.of.index(a) for a in range(len(axes.shape)) if a in axes.of]
    turned = add_call(graph.graph, before, aten.permute.default, source, [*ones, *order])
    return add_call(graph.graph, before, aten.view.default, turned, list(axes.shape))


def _arguments(node: Node) -> tuple[Any, ...]:
    return node.args


def _add_values(graph: GraphModule, node: Node) -> None:
    """``x.index_put(indices, values, accumulate=True)`` as a sum."""
    base, indices, values, *accumulate = _arguments(node)
    axes = _axes(graph, base, indices)
    if axes is None or accumulate != [True] or tuple(val(values).shape) != axes.shape:
        return
    ones = [a for a, s in enumerate(axes.shape) if a not in axes.of]
    kept = [a for a in axes.of if a is not None]
    turned = add_call(graph.graph, node, aten.permute.default, values, [*ones, *kept])
    try:
        back = add_call(graph.graph, node, aten.view.default, turned, list(val(base).shape))
    except RuntimeError:
        return
    total = add_call(graph.graph, node, aten.add.Tensor, base, back)
    if same_layout(val(total), val(node)):
        node.replace_all_uses_with(total)
    else:
        redirect(node, total)
