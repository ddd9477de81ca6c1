"""Whether loops over a few elements are to be taken one by one, and not as part of a vector.

Compilers fill up a loop that is shorter than a vector, or what is left at the end of a longer one.
That pays where half of the vector is used; with two to four of sixteen numbers, as in chains of few
states, loading and storing them costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.graphs.operations import is_pointwise
from pyro_klmodes.engine.graphs.values import infer, val

__all__ = ["SHORT_LOOPS", "for_short_loops"]

#: Rows of so few elements are short, in tables small enough for that to decide the time.
_SHORT, _SMALL = range(2, 5), 1024
#: the settings if most results are such tables
SHORT_LOOPS = {"cpp.enable_loop_tail_vec": False}


def for_short_loops(graph: GraphModule, examples: Sequence[Tensor]) -> dict[str, Any]:
    """Settings of the compiler for a graph, beyond the usual ones.

    Args:
        graph: what is compiled.
        examples: its inputs.
    """
    try:
        infer(graph, examples)
    except (NotImplementedError, RuntimeError):  # numbers decide shapes
        return {}
    shapes = [val(node).shape for node in graph.graph.nodes if is_pointwise(node)]
    for node in graph.graph.nodes:
        node.meta.clear()
    tables = [s for s in shapes if len(s) > 1]
    short = [s for s in tables if s[-1] in _SHORT and s.numel() <= _SMALL]
    most = 3 * len(short) > 2 * len(shapes)
    return SHORT_LOOPS if most else {}
