r"""Small triangular systems by substitution.

.. math:: x_j = \Bigl(b_j - \sum_{k \ne j} a_{jk} x_k\Bigr) / a_{jj},

first row first for a lower matrix, last row first for an upper one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import is_op
from pyro_klmodes.engine.graphs.values import val

__all__ = ["MOST_ROWS", "substituted"]

aten = torch.ops.aten
#: rows up to which it pays; the program grows with their square, and so does its compilation
MOST_ROWS = 12


def substituted(emit: Any, node: Node) -> Node | None:
    """The solution of a small system; None for anything else.

    Args:
        emit: adds a call.
        node: any call.
    """
    if not _is_small(node):
        return None
    matrix, right = node.args
    rows = range(val(node).shape[-2])
    solved: dict[int, Node] = {}
    for j in reversed(rows) if node.kwargs["upper"] else rows:
        of_matrix = emit(aten.select.int, matrix, -2, j)
        row = emit(aten.select.int, right, -2, j)  # (*batch, columns)
        for k, x in solved.items():
            known = emit(aten.mul.Tensor, _entry(emit, of_matrix, k), x)
            row = emit(aten.sub.Tensor, row, known)
        if not node.kwargs.get("unitriangular", False):
            row = emit(aten.div.Tensor, row, _entry(emit, of_matrix, j))
        solved[j] = row
    return emit(aten.stack.default, [solved[j] for j in rows], -2)


def _is_small(node: Node) -> bool:
    if not is_op(node, aten.linalg_solve_triangular.default):
        return False
    return bool(node.kwargs.get("left", True)) and 0 < val(node).shape[-2] <= MOST_ROWS


def _entry(emit: Any, row: Node, k: int) -> Node:  # (*batch, 1)
    return emit(aten.slice.Tensor, row, -1, k, k + 1)
