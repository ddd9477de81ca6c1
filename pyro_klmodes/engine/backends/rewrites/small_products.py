"""Products of small matrices as sums of products, which a compiler fuses with what is around them.

A call of a library for matrices takes microseconds before it computes anything, and its arguments
and result must be in memory of their own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import add_call, val

__all__ = ["MOST_PRODUCTS", "write_out_products"]

aten = torch.ops.aten
#: products of numbers up to which it pays; at twice as many a library has caught up
MOST_PRODUCTS = 8192

_MATRICES = (aten.mm.default, aten.bmm.default)


def write_out_products(graph: Graph) -> None:
    """Replace products of small matrices, and of small matrices and vectors, in place.

    Args:
        graph: with shapes known.
    """
    for node in list(graph.nodes):
        if is_op(node, *_MATRICES, aten.mv.default) and _products(node) <= MOST_PRODUCTS:
            node.replace_all_uses_with(_sum_of_products(partial(add_call, graph, node), node))
            graph.erase_node(node)


def _products(node: Node) -> int:
    arguments: tuple[Any, ...] = node.args
    left, right = map(val, arguments)
    return left.numel() * (right.shape[-1] if is_op(node, *_MATRICES) else 1)


def _sum_of_products(emit: Any, node: Node) -> Node:
    (left, right), along = node.args, -1
    if is_op(node, *_MATRICES):  # (..., n, k, 1) times (..., 1, k, m)
        left = emit(aten.unsqueeze.default, left, -1)
        right = emit(aten.unsqueeze.default, right, -3)
        along = -2
    products = emit(aten.mul.Tensor, left, right)
    return emit(aten.sum.dim_IntList, products, [along])
