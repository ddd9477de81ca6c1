"""Modules that run their graph node by node, and write no Python of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.nn import Module

from pyro_klmodes.engine.graphs.runs import result_of

__all__ = ["module_of"]


def module_of(held: Module | Mapping[str, Any], graph: Graph) -> GraphModule:
    """A module that runs a graph.

    Graphs are made by the dozen on the way to a program, each from the last, and few are ever run,
    those a few times. To write and compile the Python of one takes longer than all of that.

    Args:
        held: the constants of the graph by name, or a module that has them.
        graph: of operations, with flat inputs.
    """
    return _Late(held if isinstance(held, Module) else dict(held), graph)


class _Late(_LazyGraphModule):
    """Torch's kind that writes Python when it is called; this one does for ``pickle`` alone."""

    def _lazy_forward(self, *inputs: Tensor) -> Any:
        return result_of(self, inputs)

    forward = _lazy_forward
