"""Give the users of a result another result of the same values in another memory layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.operations import ignores_strides, is_op
from pyro_klmodes.engine.graphs.values import add_call, evaluate, same_layout, val

__all__ = ["redirect", "tolerates", "with_layout_of"]

aten = torch.ops.aten


def tolerates(
    user: Node,
    old: Node,
    new: Node,  # of the same values as old
) -> bool:
    """Whether a call gives the same bits in the same layout with another layout of an input.

    Sums do not: they add in the order in which elements lie in memory.
    """
    if not ignores_strides(user):
        return False

    def exchanged(node: Node) -> Any:
        return new if node is old else node

    args, kwargs = map_arg(user.args, exchanged), map_arg(user.kwargs, exchanged)
    try:
        result = evaluate(user.target, args, kwargs)
    except RuntimeError:
        return False
    return same_layout(result, val(user))


def redirect(old: Node, new: Node) -> bool:
    """Let the users of a result that do not mind its layout use another one.

    Args:
        old: a result in memory of its own.
        new: the same values, possibly a view of something smaller.

    Returns:
        Whether any user changed; the others still use ``old``.
    """
    changed = False
    for user in list(old.users):
        if is_op(user, aten.expand.default):
            shape = list(val(user).shape)
            wider = add_call(user.graph, user, aten.expand.default, new, shape)
            changed |= redirect(user, wider)
        elif tolerates(user, old, new):
            user.replace_input_with(old, new)
            changed = True
    return changed


def with_layout_of(node: Node, like: Tensor, before: Node) -> Node | None:
    """A copy of a result with the strides of a tensor of the same shape, if that has no gaps."""
    order = sorted(range(like.dim()), key=lambda d: (-like.stride()[d], -like.shape[d]))
    back = [order.index(d) for d in range(like.dim())]
    graph = node.graph
    turned = add_call(graph, before, aten.permute.default, node, order)
    dense = add_call(
        graph, before, aten.clone.default, turned, memory_format=torch.contiguous_format
    )
    copied = add_call(graph, before, aten.permute.default, dense, back)
    return copied if same_layout(val(copied), like) else None
