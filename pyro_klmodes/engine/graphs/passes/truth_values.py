"""Logarithms of truth values."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule

from pyro_klmodes.engine.graphs.operations import calls_of, is_op
from pyro_klmodes.engine.graphs.values import add_call, add_constant, same_layout, val

__all__ = ["choose_logs_of_truth"]

aten = torch.ops.aten


def choose_logs_of_truth(graph: GraphModule) -> GraphModule:
    """Replace the log of a truth value by a choice between 0 and minus infinity, in place.

    That is how the density of a point mass is written: ``(x == y).log()``.
    """
    for node in calls_of(graph.graph, aten.log.default):
        if not is_op(node.args[0], aten._to_copy.default):
            continue
        truth = node.args[0].args[0]
        dtype = val(node).dtype
        if val(truth).dtype is not torch.bool or val(node.args[0]).dtype != dtype:
            continue
        zero = add_constant(graph.graph, node, torch.tensor(0.0, dtype=dtype))
        never = add_constant(graph.graph, node, torch.tensor(-math.inf, dtype=dtype))
        new = add_call(graph.graph, node, aten.where.self, truth, zero, never)
        if same_layout(val(new), val(node)):
            node.replace_all_uses_with(new)
        else:
            graph.graph.erase_node(new)
    return graph
