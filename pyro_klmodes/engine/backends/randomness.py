"""Running a graph for its shapes only must not move the generator of random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx import GraphModule, Node

__all__ = ["draws", "same_generator_after"]


def draws(node: Node) -> bool:
    """Whether an operation takes random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


@contextmanager
def same_generator_after(graph: GraphModule) -> Iterator[None]:
    """Put the generator back after a graph with draws; without any, leave it alone.

    Graphs without draws are compiled in other threads, where saving and putting back would undo
    the draws that the main thread makes meanwhile.
    """
    if not any(draws(node) for node in graph.graph.nodes):
        yield
        return
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
