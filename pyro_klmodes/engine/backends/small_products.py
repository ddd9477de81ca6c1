"""Products of small matrices as sums of products, which a compiler fuses with what is around them.

A call of a library for matrices takes microseconds before it computes anything, and its arguments
and result must be in memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import add_call, infer, val

__all__ = ["MOST", "write_out_small_products"]

aten = torch.ops.aten
#: products of numbers up to which it pays; at twice as many a library has caught up
MOST = 8192

_MATRICES = (aten.mm.default, aten.bmm.default)


def write_out_small_products(arranged: Arranged, examples: Sequence[Tensor]) -> Arranged:
    """Replace them in the graph, in place; sums are taken in another order.

    Args:
        arranged: the graph.
        examples: its inputs.
    """
    graph = arranged.graph
    for node in _small(graph, examples):
        node.replace_all_uses_with(_sum_of_products(graph, node))
        graph.graph.erase_node(node)
    for node in graph.graph.nodes:
        node.meta.clear()
    graph.recompile()
    return arranged


def _small(graph: GraphModule, examples: Sequence[Tensor]) -> list[Node]:
    """The products that are to be written out; none where numbers decide shapes."""
    try:
        infer(graph, examples)
    except (NotImplementedError, RuntimeError):
        return []
    calls = [n for n in graph.graph.nodes if is_op(n, *_MATRICES, aten.mv.default)]
    return [n for n in calls if _products(n) <= MOST]


def _products(node: Node) -> int:
    arguments: tuple[Any, ...] = node.args
    left, right = map(val, arguments)
    return left.numel() * (right.shape[-1] if is_op(node, *_MATRICES) else 1)


def _sum_of_products(graph: GraphModule, node: Node) -> Node:
    emit: Any = partial(add_call, graph.graph, node)
    (left, right), along = node.args, -1
    if is_op(node, *_MATRICES):  # (..., n, k, 1) times (..., 1, k, m)
        left = emit(aten.unsqueeze.default, left, -1)
        right = emit(aten.unsqueeze.default, right, -3)
        along = -2
    products = emit(aten.mul.Tensor, left, right)
    return emit(aten.sum.dim_IntList, products, [along])
