"""Cumulative sums and products of a few elements, one after the other.

Torch's compiler leaves both to the library on processors, which costs microseconds a call; a
simplex takes four of them for its value and gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["MOST_ELEMENTS", "scanned"]

aten = torch.ops.aten
#: elements up to which it pays: each is an operation of its own
MOST_ELEMENTS = 16

_STEP: dict[Any, Any] = {
    aten.cumsum.default: aten.add.Tensor,
    aten.cumprod.default: aten.mul.Tensor,
}


def scanned(emit: Any, node: Node) -> Node | None:
    """A short one, in the same order of operations and so to the bit; None for anything else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if not is_op(node, *_STEP):
        return None
    arguments: tuple[Any, ...] = node.args
    source, dim = arguments
    if val(node).dim() == 0 or not 0 < val(node).shape[dim] <= MOST_ELEMENTS:
        return None
    dtype = val(node).dtype
    if val(source).dtype != dtype:  # truth values are counted
        source = emit(aten._to_copy.default, source, dtype=dtype)
    found = [emit(aten.select.int, source, dim, 0)]
    for i in range(1, val(node).shape[dim]):
        element = emit(aten.select.int, source, dim, i)
        found.append(emit(_STEP[node.target], found[-1], element))
    return emit(aten.stack.default, found, dim)
