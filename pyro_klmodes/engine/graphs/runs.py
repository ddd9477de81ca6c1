"""Run a graph node by node, looking at everything on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.liveness import last_used_by

__all__ = ["Done", "result_of", "run_through"]


class Done(NamedTuple):
    """A node that was just run.

    Attributes:
        node: any, the output among them.
        args: what it was called with.
        kwargs: likewise.
        value: what it gave; of the output, what the graph returns.
    """

    node: Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Any


def run_through(graph: GraphModule, inputs: Sequence[Tensor]) -> Iterator[Done]:
    """Run a graph as the caller goes on; nothing is kept longer than it is needed.

    Args:
        graph: of operations on tensors.
        inputs: flat.
    """
    taken = graph.graph.find_nodes(op="placeholder")
    values: dict[Node, Any] = dict(zip(taken, inputs, strict=True))
    done = last_used_by(graph.graph)
    for node in graph.graph.nodes:
        args: tuple[Any, ...] = ()
        kwargs: Mapping[str, Any] = {}
        if node.op == "get_attr":
            values[node] = attrgetter(str(node.target))(graph)
        elif node.op == "call_function":
            args = map_arg(node.args, values.__getitem__)
            kwargs = map_arg(node.kwargs, values.__getitem__)
            values[node] = node.target(*args, **kwargs)
        elif node.op == "output":
            values[node] = map_arg(node.args[0], values.__getitem__)
        yield Done(node, args, kwargs, values[node])
        for freed in done[node]:
            values.pop(freed, None)


def result_of(graph: GraphModule, inputs: Sequence[Tensor]) -> Any:
    """What a graph returns."""
    result: Any = None
    for done in run_through(graph, inputs):
        if done.node.op == "output":
            result = done.value
    return result
