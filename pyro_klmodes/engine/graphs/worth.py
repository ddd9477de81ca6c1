"""Whether a result is worth its memory."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.fx import Node

from pyro_klmodes.engine.graphs.operations import ignores_strides, is_view_op
from pyro_klmodes.engine.graphs.parts import ancestors
from pyro_klmodes.engine.graphs.values import val

__all__ = ["is_worth_keeping"]

aten = torch.ops.aten
_COSTLY = frozenset(
    [
        *(aten.exp.default, aten.log.default, aten.log1p.default, aten.expm1.default),
        *(aten.tanh.default, aten.lgamma.default, aten.digamma.default, aten.erf.default),
        *(aten.sin.default, aten.cos.default, aten.xlogy.Tensor),
    ]
)
_CHEAP = frozenset([aten.clone.default, aten.full.default, aten.cat.default, aten.stack.default])


def is_worth_keeping(node: Node, leaves: Collection[Node], max_elements: int) -> bool:
    """Whether to compute a result once rather than in every step.

    Views cost nothing. Results of arithmetic are kept unless they have more elements than what
    they are computed from, or are a single number; others, such as logarithms, sums, products of
    matrices, whenever there is room.
    """
    if is_view_op(node) or val(node).numel() > max_elements:
        return False
    if _is_costly(node, leaves):
        return True
    return 1 < val(node).numel() <= sum(x.numel() for x in _sources(node, leaves))


def _is_costly(node: Node, leaves: Collection[Node]) -> bool:
    """Whether anything on the way from the leaves is more than arithmetic."""
    return any(
        n.target in _COSTLY or not (ignores_strides(n) or is_view_op(n) or n.target in _CHEAP)
        for n in ancestors([node], leaves)
        if n.op == "call_function"
    )


def _sources(node: Node, leaves: Collection[Node]) -> list[Tensor]:
    return [val(n) for n in ancestors([node], leaves) if n.op != "call_function"]
