"""Running a graph for its shapes only must not move the generator of random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.fx import GraphModule

from pyro_klmodes.engine.graphs.operations import is_random_op

__all__ = ["same_generator_after"]


@contextmanager
def same_generator_after(graph: GraphModule) -> Iterator[None]:
    """Put the generator back after a graph with draws; without any, leave it alone.

    Graphs without draws are compiled in other threads, where saving and putting back would undo
    the draws that the main thread makes meanwhile.
    """
    if not any(is_random_op(node) for node in graph.graph.nodes):
        yield
        return
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
