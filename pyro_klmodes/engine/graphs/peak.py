"""How much memory the results of a graph take up at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.fx import Graph, Node

from pyro_klmodes.engine.graphs.aliases import written_arguments
from pyro_klmodes.engine.graphs.operations import is_view_op
from pyro_klmodes.engine.graphs.values import outputs, val

__all__ = ["peak_bytes"]


def peak_bytes(graph: Graph) -> int:
    """The most that results of calls take up, when one is made after the other.

    Inputs and constants do not count, nor what an operation needs while it runs.

    Args:
        graph: with shapes known.
    """
    owners = dict(_owners(graph))
    order = {node: i for i, node in enumerate(graph.nodes)}
    last: dict[Node, int] = {}
    for node, owner in owners.items():
        last[owner] = max(last.get(owner, 0), *(order[n] for n in (node, *node.users)))
    for node in outputs(graph):
        if isinstance(node, Node):
            last[owners[node]] = len(order)
    changes = [0] * (len(order) + 2)
    for owner, end in last.items():
        if owner.op == "call_function":
            size = sum(x.numel() * x.element_size() for x in _tensors(val(owner)))
            changes[order[owner]] += size
            changes[end + 1] -= size
    peak = now = 0
    for change in changes:
        now += change
        peak = max(peak, now)
    return peak


def _owners(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """For every node the one that made the memory of its result."""
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        before = node.all_input_nodes if is_view_op(node) else list(written_arguments(node))
        found[node] = found[before[0]] if before else node
        yield node, found[node]


def _tensors(value: Any) -> list[Tensor]:
    many = value if isinstance(value, list | tuple) else [value]
    return [x for x in many if isinstance(x, Tensor)]
