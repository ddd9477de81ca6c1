"""Which nodes share memory, and what is written to."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import Graph, Node

from pyro_klmodes.engine.graphs.operations import (
    is_mutable,
    is_random_op,
    is_view_op,
    schema_of,
)
from pyro_klmodes.engine.graphs.values import outputs

__all__ = ["Aliases", "effects", "is_filler", "written_arguments"]


class Aliases:
    """The sets of nodes of a graph that may share memory.

    Args:
        graph: its nodes' order is taken as it is now; build anew after changes that matter.
    """

    def __init__(self, graph: Graph) -> None:
        self._order = {n: i for i, n in enumerate(graph.nodes)}
        self._parent = {n: n for n in self._order}
        writes: list[tuple[Node, Node]] = []
        for node in self._order:
            if node.op != "call_function":
                continue
            written = list(written_arguments(node))
            writes += [(node, target) for target in written]
            # of a view, all arguments: more than needed for tensors of indices, to be safe
            for other in [*node.all_input_nodes, *written] if is_view_op(node) else written:
                self._parent[self._root(node)] = self._root(other)
        self._last_write = {self._root(target): self._order[node] for node, target in writes}
        self._returned = {self._root(n) for n in outputs(graph) if isinstance(n, Node)}

    def _root(self, node: Node) -> Node:
        while self._parent[node] is not node:
            node = self._parent[node]
        return node

    def same(self, a: Node, b: Node) -> bool:
        """Whether two nodes may share memory."""
        return self._root(a) is self._root(b)

    def members(self, node: Node) -> list[Node]:
        """All nodes that may share memory with one, in their order."""
        root = self._root(node)
        return [n for n in self._parent if self._root(n) is root]

    def is_settled(self, node: Node) -> bool:
        """Whether nothing is written to the memory of a node's result after the node."""
        return self._last_write.get(self._root(node), -1) <= self._order[node]

    def is_written(self, node: Node) -> bool:
        """Whether anything is written to the memory of a node's result at any time."""
        return self._root(node) in self._last_write

    def is_returned(self, node: Node) -> bool:
        """Whether an output shares memory with a node's result."""
        return self._root(node) in self._returned

    def replacing(self, node: Node, by: Node) -> Aliases:
        """Let the users of a node use another one; the relations as they are then."""
        returned = self.is_returned(node)
        node.replace_all_uses_with(by)
        return Aliases(node.graph) if returned else self


def written_arguments(node: Node) -> Iterator[Node]:
    """The arguments that a call writes to."""
    if node.op != "call_function" or not is_mutable(node):
        return
    for i, argument in enumerate(schema_of(node).arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            yield from _nodes_in(given)


def _nodes_in(value: object) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _nodes_in(part)


def effects(graph: Graph) -> list[Node]:
    """The calls that write to an input or to a constant of the graph: they outlive a run."""
    if not any(is_mutable(n) for n in graph.nodes if n.op == "call_function"):
        return []
    aliases = Aliases(graph)
    lasting = [n for n in graph.nodes if n.op in ("placeholder", "get_attr")]
    return [
        node
        for node in graph.nodes
        for written in written_arguments(node)
        if any(aliases.same(written, owner) for owner in lasting)
    ]


def is_filler(node: Node) -> bool:
    """Whether a call fills a tensor in place with random numbers."""
    return node.op == "call_function" and is_mutable(node) and is_random_op(node)
