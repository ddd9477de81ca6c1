"""Graphs of tensor operations: made smaller without changing a bit, and split by what they need."""

from pyro_klmodes.engine.graphs.aliases import effects
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.split import (
    Invariants,
    drop_unused_inputs,
    random_nodes,
    split_invariant,
    split_random,
)
from pyro_klmodes.engine.graphs.values import refresh

__all__ = [
    "Invariants",
    "clean",
    "drop_unused_inputs",
    "effects",
    "random_nodes",
    "refresh",
    "split_invariant",
    "split_random",
]
