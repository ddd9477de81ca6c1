"""Compute the same thing once."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import is_mutable, is_random_op
from pyro_klmodes.engine.graphs.values import constant

__all__ = ["merge_common_subexpressions"]

_SMALL = 4096  # elements up to which constants are compared by content


def merge_common_subexpressions(graph: GraphModule) -> GraphModule:
    """Let users of a repeated call use the first one, in place.

    Never merged: random operations, uninitialised memory, what is written to, and two results
    that are both returned, which would then share memory.
    """
    aliases = Aliases(graph.graph)
    first: dict[Any, Node] = {}
    for node in list(graph.graph.nodes):
        key = _key(graph, node)
        if key is None or not aliases.is_settled(node):
            continue
        kept = first.setdefault(key, node)
        if kept is node or (aliases.is_returned(kept) and aliases.is_returned(node)):
            continue
        aliases = aliases.replacing(node, kept)
    return graph


def _key(graph: GraphModule, node: Node) -> Any:
    if node.op == "get_attr":
        return _content(constant(graph.graph, node))
    if node.op != "call_function" or not _repeats(node.target):
        return None
    if is_random_op(node) or is_mutable(node):
        return None
    kwargs = tuple(sorted((k, _freeze(v)) for k, v in node.kwargs.items()))
    return node.target, _freeze(node.args), kwargs


@functools.cache
def _repeats(target: Any) -> bool:
    """Whether an operation gives the same for the same arguments."""
    known = target is operator.getitem or isinstance(target, OpOverload)
    return known and "empty" not in str(target)


def _freeze(value: Any) -> Any:
    """A key that tells apart what compares equal: 1, 1.0 and True, or 0.0 and -0.0."""
    if isinstance(value, Node):
        return value
    if isinstance(value, list | tuple):
        return tuple(_freeze(v) for v in value)
    return type(value).__name__, repr(value)


def _content(value: Tensor) -> Any:
    if value.numel() > _SMALL or value.layout is not torch.strided:
        return id(value)
    dense = torch.empty(value.numel(), dtype=value.dtype)  # a single number may have stride 0
    bits = dense.copy_(value.detach().reshape(-1)).view(torch.uint8).numpy().tobytes()
    return str(value.dtype), tuple(value.shape), value.stride(), bits
