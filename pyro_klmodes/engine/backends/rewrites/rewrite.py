"""All rewrites of a graph that is going to be compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.fx import Graph, Node

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.rewrites.comparisons import repeat_comparisons
from pyro_klmodes.engine.backends.rewrites.exponentials import one_exponential
from pyro_klmodes.engine.backends.rewrites.permutes import permuted_after, without_settled_layouts
from pyro_klmodes.engine.backends.rewrites.small_products import sum_of_products
from pyro_klmodes.engine.backends.rewrites.small_reductions import reduced
from pyro_klmodes.engine.backends.rewrites.small_scans import scanned
from pyro_klmodes.engine.backends.rewrites.small_solves import substituted
from pyro_klmodes.engine.graphs.operations import is_mutable
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.values import add_call, infer

__all__ = ["rewrite"]


def rewrite(arranged: Arranged, examples: Sequence[Tensor]) -> Arranged:
    """Rewrite a graph in place; results change by rounding, and may have other strides.

    Args:
        arranged: the graph.
        examples: its inputs.
    """
    graph = arranged.graph.graph
    if _is_understood(arranged, examples):
        without_settled_layouts(graph)
        _replace(graph, permuted_after)
        _replace(graph, one_exponential)
        repeat_comparisons(graph)
        for written_out in (sum_of_products, substituted, scanned, reduced):
            _replace(graph, written_out)
        drop_dead_code(arranged.graph)
    for node in graph.nodes:
        node.meta.clear()
    arranged.graph.recompile()
    return arranged


def _replace(graph: Graph, by: Callable[[Any, Node], Node | None]) -> None:
    """Put something else in the place of every call that has such a thing."""
    for node in list(graph.nodes):
        new = by(partial(add_call, graph, node), node)
        if new is not None:
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _is_understood(arranged: Arranged, examples: Sequence[Tensor]) -> bool:
    """Whether nothing is written to and all shapes are known, which numbers decide elsewhere."""
    if any(is_mutable(node) for node in arranged.graph.graph.nodes):
        return False
    try:
        infer(arranged.graph, examples)
    except (NotImplementedError, RuntimeError):
        return False
    return True
