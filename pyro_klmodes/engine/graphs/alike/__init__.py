"""Operations that are alike, one for each turn of a loop, become one operation on all turns."""

from pyro_klmodes.engine.graphs.alike.many_terms import join_many_terms
from pyro_klmodes.engine.graphs.alike.merge import merge_alike

__all__ = ["join_many_terms", "merge_alike"]
