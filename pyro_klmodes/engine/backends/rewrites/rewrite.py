"""All rewrites of a graph that is going to be compiled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.rewrites.comparisons import repeat_comparisons
from pyro_klmodes.engine.backends.rewrites.permutes import sink_permutes
from pyro_klmodes.engine.backends.rewrites.small_products import write_out_products
from pyro_klmodes.engine.backends.rewrites.small_scans import write_out_scans
from pyro_klmodes.engine.backends.rewrites.small_solves import write_out_solves
from pyro_klmodes.engine.graphs.operations import is_mutable
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.values import infer

__all__ = ["rewrite"]


def rewrite(arranged: Arranged, examples: Sequence[Tensor]) -> Arranged:
    """Rewrite a graph in place; results change by rounding, and may have other strides.

    Args:
        arranged: the graph.
        examples: its inputs.
    """
    graph = arranged.graph.graph
    if _is_understood(arranged, examples):
        sink_permutes(graph)
        repeat_comparisons(graph)
        write_out_products(graph)
        write_out_solves(graph)
        write_out_scans(graph)
        drop_dead_code(arranged.graph)
    for node in graph.nodes:
        node.meta.clear()
    arranged.graph.recompile()
    return arranged


def _is_understood(arranged: Arranged, examples: Sequence[Tensor]) -> bool:
    """Whether nothing is written to and all shapes are known, which numbers decide elsewhere."""
    if any(is_mutable(node) for node in arranged.graph.graph.nodes):
        return False
    try:
        infer(arranged.graph, examples)
    except (NotImplementedError, RuntimeError):
        return False
    return True
