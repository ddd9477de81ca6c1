"""Many weighed draws with the model as a graph, which takes few particles at a time."""

from pyro_klmodes.engine.draws.in_chunks import through_graph

__all__ = ["through_graph"]
