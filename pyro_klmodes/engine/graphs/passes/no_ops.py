"""Remove calls that give back what they are given."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases
from pyro_klmodes.engine.graphs.decided import CHOICES, decided
from pyro_klmodes.engine.graphs.operations import calls_of, is_op
from pyro_klmodes.engine.graphs.values import same_layout, val

__all__ = ["remove_no_ops"]

aten = torch.ops.aten

_ALIASES = (aten.detach.default, aten.alias.default, aten.lift_fresh.default)
_VIEWS = (
    *(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.expand.default),
    *(aten.permute.default, aten.transpose.int, aten.squeeze.dim, aten.squeeze.dims),
    *(aten.squeeze.default, aten.slice.Tensor, aten.t.default),
)
_COPIES = (aten.clone.default, aten.lift_fresh_copy.default, aten._to_copy.default)
_TIMES = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
_PLUS = (aten.add.Tensor, aten.add.Scalar)
_MINUS = (aten.sub.Tensor, aten.sub.Scalar)
_ONCE = (aten.all.default, aten.neg.default, aten.pow.Tensor_Scalar, aten.cat.default)
_POSSIBLE = (*_ALIASES, *_VIEWS, *_COPIES, *_TIMES, *_PLUS, *_MINUS, *_ONCE, *CHOICES)
_NEVER_NEGATIVE = (aten.exp.default, aten.softplus.default, aten.abs.default)


def remove_no_ops(graph: GraphModule) -> GraphModule:
    """Let users of a no-op use its argument, in place.

    Detached results, views of the same shape, copies of the same dtype and layout, products with
    one, sums with zero where no negative zero can come in (-0.0 + 0.0 is 0.0), powers of one,
    choices by constants. A copy stays where it keeps memory apart: where something is written to,
    or where an output would become an input, a constant or another output.
    """
    aliases = Aliases(graph.graph)
    for node in calls_of(graph.graph, *_POSSIBLE):
        if not node.args:
            continue
        choice = decided(graph, aliases, node)
        source = choice or node.args[0]
        if _is_double_negation(node):
            source = source.args[0]
        if not isinstance(source, Node):
            source = _only_part(node)
        if source is None or not _is_no_op(node, source, chosen=source is choice):
            continue
        if is_op(node, *_ALIASES, *_VIEWS):
            node.replace_all_uses_with(source)
        elif _may_share(aliases, graph, node, source):
            aliases = aliases.replacing(node, source)
    return graph


def _is_no_op(node: Node, source: Node, *, chosen: bool) -> bool:
    if is_op(node, *_ALIASES):
        return True
    if not same_layout(val(node), val(source)):
        return False
    if chosen or (is_op(node, aten.all.default) and val(node).dtype == torch.bool):
        return True
    if is_op(node, *_VIEWS) or _is_double_negation(node) or _only_part(node) is source:
        return True
    if is_op(node, *_COPIES):
        return _stays_on_cpu(node)
    if is_op(node, aten.pow.Tensor_Scalar):
        return _is_number(node.args[1], 1)
    if is_op(node, *_TIMES):
        return _is_number(node.args[1], 1)
    if is_op(node, *_MINUS):  # x - 0.0 is x, also for negative zero; x - -0.0 is not
        return _is_zero(node.args[1], negative=False) and _is_plain(node)
    if is_op(node, *_PLUS) and _is_plain(node):
        zero = node.args[1]
        exact = not val(node).dtype.is_floating_point or _never_negative_zero(source)
        return _is_zero(zero, negative=True) or (_is_zero(zero, negative=False) and exact)
    return False


def _may_share(aliases: Aliases, graph: GraphModule, node: Node, source: Node) -> bool:
    if aliases.is_written(node) or aliases.is_written(source):
        return False
    if not aliases.is_returned(node):
        return True
    outside = any(n.op in ("placeholder", "get_attr") for n in aliases.members(source))
    return not outside and not aliases.is_returned(source)


def _is_double_negation(node: Node) -> bool:
    return is_op(node, aten.neg.default) and is_op(node.args[0], aten.neg.default)


def _only_part(node: Node) -> Node | None:
    """The tensor of a concatenation of one tensor."""
    parts = node.all_input_nodes
    return parts[0] if is_op(node, aten.cat.default) and _terms(node) == 1 else None


def _terms(node: Node) -> int:
    (listed, *_) = node.args
    return len(listed) if isinstance(listed, list | tuple) else 0


def _stays_on_cpu(node: Node) -> bool:
    device = node.kwargs.get("device")
    return device is None or (isinstance(device, torch.device) and device.type == "cpu")


def _is_plain(node: Node) -> bool:
    """Whether no factor scales the second term."""
    return len(node.args) == 2 and "alpha" not in node.kwargs


def _is_number(value: Any, wanted: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == wanted


def _is_zero(value: Any, *, negative: bool) -> bool:
    return _is_number(value, 0) and (math.copysign(1.0, value) < 0) is negative


def _never_negative_zero(node: Node) -> bool:
    """Whether a result is known to hold no negative zero."""
    if is_op(node, *_NEVER_NEGATIVE):
        return True
    if is_op(node, aten.pow.Tensor_Scalar):
        return _is_number(node.args[1], 2)
    if is_op(node, *_ALIASES, *_VIEWS):
        return _never_negative_zero(node.all_input_nodes[0])
    if is_op(node, *_PLUS) and _is_plain(node):  # only -0.0 + -0.0 is -0.0
        terms = node.all_input_nodes
        return _is_zero(node.args[1], negative=False) or any(map(_never_negative_zero, terms))
    return False
