"""A view of a view is one view of the source."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import add_call, same_layout, val

__all__ = ["join_views"]

aten = torch.ops.aten
_RESHAPES = (
    *(aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim),
    *(aten.squeeze.dims, aten.squeeze.default),
)


def join_views(graph: GraphModule) -> GraphModule:
    """Replace expands of expands, and reshapes of reshapes, by one, in place.

    Only where the single view has the same strides.
    """
    for node in list(graph.graph.nodes):
        for kinds, joint in (
            ((aten.expand.default,), aten.expand.default),
            (_RESHAPES, aten.view.default),
        ):
            if is_op(node, *kinds) and is_op(node.args[0], *kinds):
                _join(graph, node, node.args[0].args[0], joint)
    return graph


def _join(graph: GraphModule, node: Node, source: Node, joint: torch._ops.OpOverload) -> None:
    try:
        new = add_call(graph.graph, node, joint, source, list(val(node).shape))
    except RuntimeError:  # the elements do not lie so that one view could take them
        return
    if same_layout(val(new), val(node)):
        node.replace_all_uses_with(new)
    else:
        graph.graph.erase_node(new)
