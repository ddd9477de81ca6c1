"""After which operation a value is no longer needed."""

from __future__ import annotations

from torch.fx import Graph, Node

__all__ = ["last_used_by"]


def last_used_by(graph: Graph) -> dict[Node, list[Node]]:
    """For every node what nothing after it uses; that is the node itself, if nothing does."""
    seen: set[Node] = set()
    done: dict[Node, list[Node]] = {}
    for node in reversed(list(graph.nodes)):
        done[node] = [n for n in (node, *node.all_input_nodes) if n not in seen]
        seen |= set(done[node])
    return done
