"""Tensors filled with one number are that number, expanded."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.layouts import redirect
from pyro_klmodes.engine.graphs.operations import FACTORIES, calls_of
from pyro_klmodes.engine.graphs.values import add_call, add_constant, same_layout, val

__all__ = ["expand_fills"]

aten = torch.ops.aten


def expand_fills(graph: GraphModule) -> GraphModule:
    """Let pointwise users of ``zeros_like`` and its kind use an expanded constant, in place.

    Others get ``full``, which does not depend on the tensor that it is like.
    """
    filled = calls_of(graph.graph, *FACTORIES)
    if not filled:
        return graph
    aliases = Aliases(graph.graph)
    for node in filled:
        if aliases.is_written(node) or not val(node).is_contiguous():
            continue
        shape, number = list(val(node).shape), _number(node)
        if not isinstance(number, int | float | bool):
            continue
        scalar = add_constant(graph.graph, node, torch.tensor(number, dtype=val(node).dtype))
        if shape:
            redirect(node, add_call(graph.graph, node, aten.expand.default, scalar, shape))
        elif not aliases.is_returned(node):
            node.replace_all_uses_with(scalar)
        if node.users and node.target is not aten.full.default:
            _fill_alone(graph, node, shape, number)
    return graph


def _number(node: Node) -> Any:
    """What a factory fills its result with."""
    known = FACTORIES[node.target]
    if known is not None:
        return known
    position = 0 if node.target is aten.scalar_tensor.default else 1
    return node.args[position]


def _fill_alone(graph: GraphModule, node: Node, shape: list[int], number: float) -> None:
    with graph.graph.inserting_before(node):
        new = graph.graph.call_function(
            aten.full.default, (shape, number), {"dtype": val(node).dtype}
        )
    new.meta = dict(node.meta)
    if same_layout(val(new), val(node)):
        node.replace_all_uses_with(new)
