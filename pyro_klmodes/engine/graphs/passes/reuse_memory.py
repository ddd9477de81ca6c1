"""Write results where an argument was that nothing needs any more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import is_view_op
from pyro_klmodes.engine.graphs.values import same_layout, val

__all__ = ["reuse_memory"]

aten = torch.ops.aten
#: elementwise operations, and those that write the same bits into a tensor that is given
_INTO: dict[Any, OpOverload] = {
    aten.add.Tensor: aten.add.out,
    aten.sub.Tensor: aten.sub.out,
    aten.mul.Tensor: aten.mul.out,
    aten.div.Tensor: aten.div.out,
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Scalar_out,
    aten.neg.default: aten.neg.out,
    aten.exp.default: aten.exp.out,
    aten.log.default: aten.log.out,
    aten.log1p.default: aten.log1p.out,
    aten.expm1.default: aten.expm1.out,
    aten.sigmoid.default: aten.sigmoid.out,
    aten.tanh.default: aten.tanh.out,
    aten.where.self: aten.where.self_out,
}
#: smaller tensors cost next to nothing
_LARGE = 2**12


def reuse_memory(
    graph: GraphModule,  # as ``clean`` leaves it, without random operations
) -> GraphModule:
    """Replace elementwise operations on a large result that ends there by those in place.

    Fewer different tensors are touched, so that more of them stay in the cache. No other pass takes
    what this one gives.
    """
    aliases = Aliases(graph.graph)
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    free = {node for node in order if _owns_memory(node, aliases)}
    for node in list(order):
        if node.target not in _INTO or val(node).numel() < _LARGE:
            continue
        ends = [a for a in node.all_input_nodes if all(order[u] <= order[node] for u in a.users)]
        place = next((a for a in ends if a in free and same_layout(val(a), val(node))), None)
        if place is None:
            continue
        with graph.graph.inserting_before(node):
            into = graph.graph.call_function(
                _INTO[node.target], node.args, {**node.kwargs, "out": place}
            )
        into.meta, order[into] = dict(node.meta), order[node]
        if node in free:
            free.add(into)
        node.replace_all_uses_with(into)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return graph


def _owns_memory(node: Node, aliases: Aliases) -> bool:
    """Whether no other result, nor anything that outlives a run, shares the memory of this one."""
    if node.op != "call_function" or is_view_op(node) or aliases.is_returned(node):
        return False
    return isinstance(node.meta.get("val"), Tensor) and aliases.members(node) == [node]
