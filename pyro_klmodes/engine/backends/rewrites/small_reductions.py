"""Reductions of a few elements, written out.

A compiler makes a loop of a reduction, and goes through the few elements innermost, one by one.
Written out they are arithmetic like any other, done for many rows at once and in one go with what
comes before and after. Chains of few states spend their time there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["MOST_ELEMENTS", "MOST_RESULTS", "reduced"]

aten = torch.ops.aten
#: elements of one reduction up to which it pays: each is an operation of its own
MOST_ELEMENTS = 4
#: results up to which it pays: loops over more of them are long enough by themselves
MOST_RESULTS = 1024

_BY_TWOS: dict[Any, Any] = {
    aten.sum.dim_IntList: aten.add.Tensor,
    aten.amax.default: aten.maximum.default,
    aten.all.dim: aten.bitwise_and.Tensor,
}


def reduced(emit: Any, node: Node) -> Node | None:
    """A reduction of a few elements over one dimension, in their order; None for anything else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if not is_op(node, *_BY_TWOS, aten.logsumexp.default) or len(node.args) < 2:
        return None
    source: Any = node.args[0]
    dims: Any = [node.args[1]] if isinstance(node.args[1], int) else node.args[1]
    x, result = val(source), val(node)
    if dims is None or len(dims) != 1 or x.dim() == 0 or x.dtype != result.dtype:
        return None
    (dim,) = dims
    if not 0 < x.shape[dim] <= MOST_ELEMENTS or result.numel() > MOST_RESULTS:
        return None
    elements = [emit(aten.select.int, source, dim, i) for i in range(x.shape[dim])]
    if is_op(node, aten.logsumexp.default):
        found = _log_sum_exp(emit, elements)
    else:
        found = _joined(emit, _BY_TWOS[node.target], elements)
    return emit(aten.unsqueeze.default, found, dim % x.dim()) if result.dim() == x.dim() else found


def _joined(emit: Any, by: Any, elements: Sequence[Node]) -> Node:
    """The first two, with the third, and so on."""
    return reduce(lambda a, b: emit(by, a, b), elements)


def _log_sum_exp(emit: Any, elements: Sequence[Node]) -> Node:
    """Less the largest one, unless that is infinite, as torch does it."""
    largest = _joined(emit, aten.maximum.default, elements)
    infinite = emit(aten.eq.Scalar, emit(aten.abs.default, largest), math.inf)
    less = emit(aten.where.ScalarSelf, infinite, 0.0, largest)
    terms = [emit(aten.exp.default, emit(aten.sub.Tensor, x, less)) for x in elements]
    total = _joined(emit, aten.add.Tensor, terms)
    return emit(aten.add.Tensor, emit(aten.log.default, total), less)
