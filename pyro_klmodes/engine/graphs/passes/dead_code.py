"""Drop what no output needs."""

from __future__ import annotations

from torch.fx import GraphModule

from pyro_klmodes.engine.graphs.operations import is_mutable, is_random_op

__all__ = ["drop_dead_code"]


def drop_dead_code(graph: GraphModule) -> GraphModule:
    """Erase the nodes whose results nobody uses, in place.

    Inputs stay, so that the signature stays. Random operations stay, because they advance the
    generator, and so does whatever writes to a tensor.
    """
    for node in reversed(list(graph.graph.nodes)):
        if node.users or node.op in ("placeholder", "output"):
            continue
        if node.op == "call_function" and (is_random_op(node) or is_mutable(node)):
            continue
        graph.graph.erase_node(node)
    _drop_unused_constants(graph)
    return graph


def _drop_unused_constants(graph: GraphModule) -> None:
    used = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"}
    for name in [*graph._buffers, *graph._parameters]:
        if name not in used:
            delattr(graph, name)
