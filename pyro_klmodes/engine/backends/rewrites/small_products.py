"""Products of small matrices as sums of products, which a compiler fuses with what is around them.

A call of a library for matrices takes microseconds before it computes anything, and its arguments
and result must be in memory of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["MOST_PRODUCTS", "sum_of_products"]

aten = torch.ops.aten
#: products of numbers up to which it pays; at twice as many a library has caught up
MOST_PRODUCTS = 8192

_MATRICES = (aten.mm.default, aten.bmm.default)


def sum_of_products(emit: Any, node: Node) -> Node | None:
    """A product of small matrices, or of a matrix and a vector; None for anything else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if not is_op(node, *_MATRICES, aten.mv.default) or _products(node) > MOST_PRODUCTS:
        return None
    (left, right), along = node.args, -1
    if is_op(node, *_MATRICES):  # (..., n, k, 1) times (..., 1, k, m)
        left = emit(aten.unsqueeze.default, left, -1)
        right = emit(aten.unsqueeze.default, right, -3)
        along = -2
    products = emit(aten.mul.Tensor, left, right)
    return emit(aten.sum.dim_IntList, products, [along])


def _products(node: Node) -> int:
    arguments: tuple[Any, ...] = node.args
    left, right = map(val, arguments)
    return left.numel() * (right.shape[-1] if is_op(node, *_MATRICES) else 1)
