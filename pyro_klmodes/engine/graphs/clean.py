"""All passes, in an order in which each makes work for the next, until nothing changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.graphs.aliases import effects
from pyro_klmodes.engine.graphs.passes.axis_indices import view_axis_indices
from pyro_klmodes.engine.graphs.passes.chained_views import join_views
from pyro_klmodes.engine.graphs.passes.common_subexpressions import merge_common_subexpressions
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.passes.fills import expand_fills
from pyro_klmodes.engine.graphs.passes.fold_constants import fold_constants
from pyro_klmodes.engine.graphs.passes.functionalise import functionalise
from pyro_klmodes.engine.graphs.passes.no_ops import remove_no_ops
from pyro_klmodes.engine.graphs.passes.one_index import use_one_index
from pyro_klmodes.engine.graphs.passes.scalars import inline_scalars
from pyro_klmodes.engine.graphs.passes.sink_expands import sink_expands
from pyro_klmodes.engine.graphs.passes.truth_values import choose_logs_of_truth
from pyro_klmodes.engine.graphs.values import constant, refresh

__all__ = ["PASSES", "clean"]

PASSES = (
    *(remove_no_ops, fold_constants, expand_fills, join_views, merge_common_subexpressions),
    *(view_axis_indices, sink_expands, choose_logs_of_truth, inline_scalars, use_one_index),
)
_MAX_ROUNDS = 8


def clean(graph: GraphModule, examples: Sequence[Tensor]) -> GraphModule:
    """A graph that gives the same bits with fewer operations.

    The given graph may be changed or not; use what is returned. Random operations stay as they
    are, in their order.

    Args:
        graph: of operations of aten on tensors, with flat inputs and outputs.
        examples: inputs like those that the graph will be called with.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> def step(x):
        ...     return (x.detach() * 1 + torch.tensor(2.0).expand(3).log(),)
        >>> graph = clean(make_fx(step)(torch.ones(3)), [torch.ones(3)])
        >>> [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        ['aten.add.Tensor']
    """
    with _state_kept(graph):
        return _clean(graph, examples)


def _clean(graph: GraphModule, examples: Sequence[Tensor]) -> GraphModule:
    refresh(graph, examples)
    graph = functionalise(graph, examples)
    refresh(graph, examples)
    for _ in range(_MAX_ROUNDS):
        before = _text(graph)
        for apply in PASSES:
            graph = apply(graph)
            drop_dead_code(graph)
        if _text(graph) == before:
            break
    graph.graph.lint()
    graph.recompile()
    refresh(graph, examples)
    return graph


@contextmanager
def _state_kept(graph: GraphModule) -> Iterator[None]:
    """Undo what trial runs write to constants, such as the running means of a BatchNorm."""
    held: list[Tensor] = []
    if effects(graph.graph):
        held = [constant(graph.graph, n) for n in graph.graph.find_nodes(op="get_attr")]
    copies = [x.detach().clone() for x in held]
    try:
        yield
    finally:
        with torch.no_grad():
            for x, copy in zip(held, copies, strict=True):
                x.copy_(copy)


def _text(graph: GraphModule) -> list[str]:
    return [f"{n.target}{n.args}{n.kwargs}" for n in graph.graph.nodes]
