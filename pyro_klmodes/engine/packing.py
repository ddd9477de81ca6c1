"""Many small tensors as one vector: a step then has few inputs, and one update serves them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Packing"]

#: beyond this many numbers copying them costs more than handing over several tensors
_LARGEST = 2**15


@dataclass(frozen=True)
class Packing:
    """How some tensors are laid out: in one vector, or each by itself.

    Attributes:
        shapes: of the tensors.
        joined: whether they are in one vector.
    """

    shapes: tuple[torch.Size, ...]
    joined: bool

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Packing:
        """One vector for few numbers of one type."""
        alike = len({(x.dtype, x.device) for x in tensors}) == 1
        few = sum(x.numel() for x in tensors) <= _LARGEST
        return cls(tuple(x.shape for x in tensors), alike and few and len(tensors) > 1)

    def pack(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """From tensors to how a program takes them."""
        if not self.joined:
            return list(tensors)
        return [torch.cat([x.reshape(-1) for x in tensors])]

    def unpack(self, packed: Sequence[Tensor]) -> list[Tensor]:
        """And back, as views."""
        if not self.joined:
            return list(packed)
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = packed[0].split(sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
