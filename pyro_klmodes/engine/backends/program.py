"""What a back end makes of a graph, and what it relies on when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from torch import Tensor

__all__ = ["Program", "Tier", "same_layout"]

#: Flat tensors in, flat tensors out. The list handed in is left alone; what comes back shares no
#: memory with it, nor with what other calls give back.
Program: TypeAlias = Callable[[list[Tensor]], list[Tensor]]

Tier: TypeAlias = Literal["graph", "inductor", "aot"]


def same_layout(inputs: Sequence[Tensor], examples: Sequence[Tensor]) -> bool:
    """Whether a program built for some examples may be called with these inputs.

    Compiled programs do not look: they read memory by the shapes and strides of the examples.
    Whoever calls one asks this first, once for every new data set.

    Example:
        >>> import torch
        >>> same_layout([torch.ones(3, 2)], [torch.zeros(3, 2)])
        True
        >>> same_layout([torch.ones(2, 3).T], [torch.zeros(3, 2)])
        False
    """
    return len(inputs) == len(examples) and all(
        (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
        for a, b in zip(inputs, examples, strict=True)
    )
