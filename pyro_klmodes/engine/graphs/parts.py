"""Copy a part of a graph into a graph of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch.fx import Graph, GraphModule, Node

from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.values import append_held, constant, outputs

__all__ = ["ancestors", "copy_part", "inline", "placeholders"]


def placeholders(graph: GraphModule) -> list[Node]:
    """The inputs of a graph, in order."""
    return [n for n in graph.graph.nodes if n.op == "placeholder"]


def ancestors(nodes: Collection[Node], stops: Collection[Node] = ()) -> set[Node]:
    """Some nodes and all that they are computed from, not looking behind some of them."""
    found: set[Node] = set()
    left, ends = list(nodes), set(stops)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            if node not in ends:
                left.extend(node.all_input_nodes)
    return found


def copy_part(
    graph: GraphModule,
    *,
    inputs: Sequence[Node],
    returned: Sequence[Any],
    needed: Collection[Node] = (),
) -> GraphModule:
    """A graph that computes some results from other results.

    Args:
        graph: the whole; it is not changed.
        inputs: nodes whose results the part is called with, in this order.
        returned: what the part returns, as a flat tuple; nodes and numbers.
        needed: nodes that are to run although no result may depend on them.

    Raises:
        KeyError: if a result depends on an input of the whole that is not given.
    """
    part = Graph()
    copies: dict[Node, Node] = {}
    for i, node in enumerate(inputs):
        copies[node] = part.placeholder(f"arg{i}_1")
        copies[node].meta = dict(node.meta)
    results = [n for n in returned if isinstance(n, Node)]
    wanted = ancestors(set(results) | set(needed), inputs)
    attributes: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if node in wanted and node not in copies:
            if node.op == "placeholder":
                raise KeyError(f"input {node.name} is needed and not given")
            copies[node] = part.node_copy(node, copies.__getitem__)
            if node.op == "get_attr":
                name = str(node.target).replace(".", "_")
                copies[node].target, attributes[name] = name, constant(graph.graph, node)
    part.output(tuple(copies[n] if isinstance(n, Node) else n for n in returned))
    return module_of(attributes, part)


def inline(
    whole: Graph,
    attributes: dict[str, Any],
    piece: GraphModule,
    inputs: Sequence[Node],
) -> list[Any]:
    """Append all of a graph to a larger one, and give back the nodes of what it returns.

    Args:
        whole: what is appended to.
        attributes: the constants of the whole by name; those of the piece are added.
        piece: left as it is.
        inputs: nodes of the whole that take the place of the inputs of the piece.
    """
    copies = dict(zip(placeholders(piece), inputs, strict=True))
    for node in piece.graph.nodes:
        if node.op == "get_attr":
            copies[node] = append_held(whole, attributes, constant(piece.graph, node))
        elif node.op == "call_function":
            copies[node] = whole.node_copy(node, copies.__getitem__)
    return [copies[n] if isinstance(n, Node) else n for n in outputs(piece.graph)]
