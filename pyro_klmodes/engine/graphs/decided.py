"""Choices that a constant truth value decides once and for all."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import constant, val

__all__ = ["CHOICES", "decided"]

aten = torch.ops.aten
_AND = (aten.bitwise_and.Tensor, aten.logical_and.default)

#: the operations that may be decided
CHOICES = (aten.where.self, *_AND)


def decided(graph: GraphModule, aliases: Aliases, node: Node) -> Node | None:
    """The argument that a choice or a conjunction gives back; None if that is open.

    Checks of supports are written so: most of them hold for every value.
    """
    arguments: tuple[Any, ...] = node.args
    if is_op(node, aten.where.self):
        condition, yes, no = arguments
        truth = _truth(graph, aliases, condition)
        return None if truth is None else (yes if truth else no)
    if is_op(node, *_AND):
        one, other = arguments
        for each, left in ((one, other), (other, one)):
            if _truth(graph, aliases, each) and val(left).dtype == torch.bool:
                return left
    return None


def _truth(graph: GraphModule, aliases: Aliases, node: Node) -> bool | None:
    """Whether a constant is true, or false, in every element."""
    if node.op != "get_attr" or aliases.is_written(node):
        return None
    value = constant(graph.graph, node)
    if value.dtype != torch.bool or value.numel() == 0:
        return None
    first = bool(value.flatten()[0])
    return first if bool((value == first).all()) else None
