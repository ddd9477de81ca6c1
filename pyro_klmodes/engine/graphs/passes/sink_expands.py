"""Compute on the few elements that there are, and repeat the result."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.layouts import redirect, tolerates
from pyro_klmodes.engine.graphs.operations import ignores_strides, is_op
from pyro_klmodes.engine.graphs.values import add_call, evaluate, same_layout, val

__all__ = ["sink_expands"]

aten = torch.ops.aten
_WORTH_A_COPY = 1024  # elements from which a repeated result is copied rather than recomputed


def sink_expands(graph: GraphModule) -> GraphModule:
    """Replace pointwise ``f(expand(x))`` by ``expand(f(x))``, in place.

    With several tensor arguments all of them are taken without their expands, if what they
    broadcast to has fewer elements than the result. The dtype must come out the same (an
    expanded number takes part in promotion, a number does not). Where the result keeps its size,
    a needless expand of an argument is dropped. Users that mind the layout, like sums, get a dense
    copy of the repeated result, so that they add up the same bits in the same order.
    """
    aliases = Aliases(graph.graph)
    for node in list(graph.graph.nodes):
        if not ignores_strides(node) or aliases.is_written(node):
            continue
        sources = {a: _source(a) for a in node.all_input_nodes}
        if all(a is s for a, s in sources.items()):
            continue
        args, kwargs = (map_arg(x, sources.__getitem__) for x in (node.args, node.kwargs))
        try:
            small = evaluate(node.target, args, kwargs)
        except RuntimeError:
            continue
        if small.dtype != val(node).dtype:
            continue
        if small.numel() < val(node).numel():
            _sink(graph, node, args, kwargs)
        elif same_layout(small, val(node)):
            node.args, node.kwargs = args, kwargs
    return graph


def _source(node: Node) -> Node:
    if not is_op(node, aten.expand.default):
        return node
    (source,) = node.all_input_nodes
    return source


def _sink(graph: GraphModule, node: Node, args: Any, kwargs: Any) -> None:
    shape = list(val(node).shape)
    few = add_call(graph.graph, node, node.target, *args, **kwargs)
    many = add_call(graph.graph, node, aten.expand.default, few, shape)
    large = val(node).numel() >= _WORTH_A_COPY
    views = [u for u in node.users if is_op(u, aten.expand.default)]
    if not large and not all(u in views or tolerates(u, node, many) for u in node.users):
        graph.graph.erase_node(many)
        graph.graph.erase_node(few)
        return
    redirect(node, many)
    kept = [u for u in node.users if u.users or u.op == "output"]
    if kept and large and val(node).is_contiguous():
        dense = add_call(
            graph.graph, node, aten.clone.default, many, memory_format=torch.contiguous_format
        )
        node.replace_all_uses_with(dense)
