"""Cumulative sums and products of a few elements, one after the other.

Torch's compiler leaves both to the library on processors, which costs microseconds a call; a
simplex takes four of them for its value and gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import add_call, val

__all__ = ["MOST_ELEMENTS", "write_out_scans"]

aten = torch.ops.aten
#: elements up to which it pays: each is an operation of its own
MOST_ELEMENTS = 16

_STEP: dict[Any, Any] = {
    aten.cumsum.default: aten.add.Tensor,
    aten.cumprod.default: aten.mul.Tensor,
}


def write_out_scans(graph: Graph) -> None:
    """Replace them in place, with the same order of operations and so the same bits.

    Args:
        graph: with shapes known.
    """
    for node in list(graph.nodes):
        if is_op(node, *_STEP) and _is_short(node):
            node.replace_all_uses_with(_scanned(partial(add_call, graph, node), node))
            graph.erase_node(node)


def _is_short(node: Node) -> bool:
    arguments: tuple[Any, ...] = node.args
    value = val(node)
    return value.dim() > 0 and 0 < value.shape[arguments[1]] <= MOST_ELEMENTS


def _scanned(emit: Any, node: Node) -> Node:
    arguments: tuple[Any, ...] = node.args
    source, dim = arguments
    dtype = val(node).dtype
    if val(source).dtype != dtype:  # truth values are counted
        source = emit(aten._to_copy.default, source, dtype=dtype)
    found = [emit(aten.select.int, source, dim, 0)]
    for i in range(1, val(node).shape[dim]):
        element = emit(aten.select.int, source, dim, i)
        found.append(emit(_STEP[node.target], found[-1], element))
    return emit(aten.stack.default, found, dim)
