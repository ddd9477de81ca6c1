"""Compute once what depends on constants alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import is_mutable, is_op, is_random_op, is_view_op
from pyro_klmodes.engine.graphs.values import add_constant, constant, val

__all__ = ["fold_constants"]

aten = torch.ops.aten
_UNINITIALISED = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")


def fold_constants(graph: GraphModule, max_elements: int = 2**20) -> GraphModule:
    """Replace results that depend on constants alone by constants, in place.

    The operations themselves are run, so dtypes and bits are theirs. Random operations, what
    is written to, and uninitialised memory are left alone; so are views that repeat elements,
    which would cost memory.

    Args:
        graph: changed in place.
        max_elements: results with more elements are left to be computed each time.
    """
    aliases = Aliases(graph.graph)
    known: dict[Node, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr" and not aliases.is_written(node):
            known[node] = constant(graph.graph, node)
        elif _is_constant(node, known, aliases) and val(node).numel() <= max_elements:
            known[node] = _compute(node, known)
    for node in reversed(list(known)):  # users first
        needed = [u for u in node.users if u not in known]
        if not needed or node.op == "get_attr":
            continue
        if _repeats(node, known) or aliases.is_returned(node):
            del known[node]  # stays a call, of a constant
            continue
        value = known[node]
        dense = value.clone() if value.is_contiguous() else value
        new = add_constant(graph.graph, node, dense)
        for user in needed:
            user.replace_input_with(node, new)
    return graph


def _is_constant(node: Node, known: dict[Node, Tensor], aliases: Aliases) -> bool:
    if node.op != "call_function" or not all(n in known for n in node.all_input_nodes):
        return False
    if not isinstance(node.target, OpOverload):
        return False
    if is_random_op(node) or is_mutable(node) or aliases.is_written(node):
        return False
    if node.target._schema.name.split("::")[-1] in _UNINITIALISED:
        return False
    return isinstance(node.meta.get("val"), Tensor)


def _compute(node: Node, known: dict[Node, Tensor]) -> Any:
    with torch.no_grad():
        args = map_arg(node.args, known.__getitem__)
        kwargs = map_arg(node.kwargs, known.__getitem__)
        operation: Any = node.target
        return operation(*args, **kwargs)


def _repeats(node: Node, known: dict[Node, Tensor]) -> bool:
    """Whether a result has more elements than the memory it is a view of."""
    if is_op(node, aten.expand.default):
        return val(node).numel() > val(node.all_input_nodes[0]).numel()
    if is_view_op(node):
        return any(_repeats(n, known) for n in node.all_input_nodes if n.op == "call_function")
    return False
