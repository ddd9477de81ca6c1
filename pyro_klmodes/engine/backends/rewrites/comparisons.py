"""A comparison is made where its outcome is needed.

Compilers keep what several operations need. Truth values are kept one byte each, which takes
longer to write and to read than comparing the numbers once more.
"""

from __future__ import annotations

import torch
from torch.fx import Graph

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["repeat_comparisons"]

aten = torch.ops.aten
_COMPARISONS = (
    *(aten.eq.Scalar, aten.ne.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.gt.Scalar),
    aten.ge.Scalar,
)
#: elements from which it pays
_FEWEST = 256


def repeat_comparisons(graph: Graph) -> None:
    """Give every further user of a comparison with a number a comparison of its own, in place.

    Args:
        graph: with shapes known; changed in place.
    """
    for node in list(graph.nodes):
        if is_op(node, *_COMPARISONS) and val(node).numel() >= _FEWEST:
            for user in list(node.users)[1:]:
                with graph.inserting_before(user):
                    again = graph.node_copy(node)
                user.replace_input_with(node, again)
