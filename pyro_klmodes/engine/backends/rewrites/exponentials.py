"""Of the exponentials of -m and n - m, where m is the larger one of n and zero, one is exp(0).

So torch computes the logistic likelihood and its gradient. The exponential of -abs(n) is the other
one, and with it half of the work is done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op

__all__ = ["one_exponential"]

aten = torch.ops.aten


def one_exponential(emit: Any, node: Node) -> Node | None:
    """Either exponential by means of that of -abs(n), to the bit; None for anything else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if not is_op(node, aten.exp.default):
        return None
    exponent: Any = node.args[0]
    if is_op(exponent, aten.neg.default):
        n = _positive_part_of(exponent.args[0])
    elif is_op(exponent, aten.sub.Tensor) and not exponent.kwargs:
        n = _positive_part_of(exponent.args[1])
        if exponent.args[0] is not n:
            return None
    else:
        return None
    if n is None:
        return None
    small = emit(aten.exp.default, emit(aten.neg.default, emit(aten.abs.default, n)))
    # comparisons that are false give -abs(n) its turn, so that it passes on what is not a number
    if is_op(exponent, aten.neg.default):
        return emit(aten.where.ScalarSelf, emit(aten.le.Scalar, n, 0), 1.0, small)
    one = emit(aten.add.Scalar, exponent, 1.0)  # n - m is zero, but not a number if n is infinite
    return emit(aten.where.self, emit(aten.gt.Scalar, n, 0), one, small)


def _positive_part_of(node: Any) -> Any:
    """What ``node`` is the larger one of, besides zero; None if it is not of this form."""
    if not is_op(node, aten.clamp_min.default) or node.args[1] != 0:
        return None
    return node.args[0]
