"""The random numbers of many steps, bit by bit as ever, in fewer calls of the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.values import outputs

__all__ = ["Noise"]

_ATEN = torch.ops.aten
#: torch fills normal numbers one by one below this size, and in blocks of it from there on
_BLOCK = 16
_FRESH = (_ATEN.empty.memory_format, _ATEN.empty_like.default, _ATEN.new_empty.default)


@dataclass(frozen=True)
class Noise:
    """Standard normal draws of known shapes, one after the other.

    Consecutive draws are one call where that consumes the generator alike: fewer than 16 numbers
    in all, or every draw a multiple of 16.

    Attributes:
        shapes: of the draws.
        dtype: theirs.
        groups: how many numbers each call gives.

    Example:
        >>> noise = Noise.of_shapes([(), (3,)], torch.float32)
        >>> _ = torch.manual_seed(0)
        >>> apart = torch.randn(()), torch.randn(3)
        >>> _ = torch.manual_seed(0)
        >>> together = noise.split(noise.rows(1)[0])
        >>> all(torch.equal(a, b) for a, b in zip(apart, together, strict=True)), noise.groups
        (True, (4,))
    """

    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    groups: tuple[int, ...]

    @classmethod
    def of_shapes(cls, shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> Noise:
        """Plan the calls for some draws."""
        groups: list[list[int]] = []
        for shape in shapes:
            size = torch.Size(shape).numel()
            if groups and _may_join([*groups[-1], size]):
                groups[-1].append(size)
            else:
                groups.append([size])
        return cls(tuple(tuple(s) for s in shapes), dtype, tuple(sum(g) for g in groups))

    @classmethod
    def of(cls, prelude: GraphModule) -> Noise | None:
        """Read them off a graph that draws; None if it does anything but draw normal numbers."""
        drawn = [
            n for n in prelude.graph.nodes if n.op == "call_function" and n.target not in _FRESH
        ]
        values = [n.meta.get("val") for n in drawn]
        plain = outputs(prelude.graph) == drawn and all(_is_standard_normal(n) for n in drawn)
        if not drawn or not plain or not all(isinstance(v, Tensor) for v in values):
            return None
        if len({v.dtype for v in values}) != 1 or not all(v.is_contiguous() for v in values):
            return None
        return cls.of_shapes([v.shape for v in values], values[0].dtype)

    def rows(self, count: int) -> list[list[Tensor]]:
        """Draw for so many steps: the results of the calls, step by step."""
        if len(self.groups) == 1 and self.groups[0] % _BLOCK == 0:
            return [[row] for row in torch.randn(count, self.groups[0], dtype=self.dtype).unbind(0)]
        return [[torch.randn(n, dtype=self.dtype) for n in self.groups] for _ in range(count)]

    def places(self) -> list[tuple[int, int, int]]:
        """For every draw the call that gives it, and where it begins and ends in its result."""
        found, group, start = [], 0, 0
        for shape in self.shapes:
            size = torch.Size(shape).numel()
            if start + size > self.groups[group]:
                group, start = group + 1, 0
            stop = start + size
            found.append((group, start, stop))
            start = stop
        return found

    def split(self, row: Sequence[Tensor]) -> list[Tensor]:
        """The draws of one step in their shapes."""
        return [
            row[group][start:stop].view(shape)
            for (group, start, stop), shape in zip(self.places(), self.shapes, strict=True)
        ]


def _may_join(sizes: Sequence[int]) -> bool:
    return sum(sizes) < _BLOCK or all(size % _BLOCK == 0 for size in sizes)


def _is_standard_normal(node: Node) -> bool:
    target: Any = node.target
    if target is _ATEN.randn.default:
        return node.kwargs.get("generator") is None
    if target is not _ATEN.normal_.default or not isinstance(node.args[0], Node):
        return False
    fresh = node.args[0].target in _FRESH
    return fresh and tuple(node.args[1:]) in ((), (0.0,), (0.0, 1.0)) and not node.kwargs
