"""The random numbers of many steps, bit by bit as ever, in fewer calls of the generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.values import outputs

__all__ = ["Fill", "Noise"]

_ATEN = torch.ops.aten
#: torch fills memory without gaps one by one below this size, and in blocks of it from there on
_BLOCK = 16
_FRESH = (_ATEN.empty.memory_format, _ATEN.empty_like.default, _ATEN.new_empty.default)


class Fill(NamedTuple):
    """One call of the generator.

    Attributes:
        size: how many numbers it gives.
        one_by_one: whether they are made as those of small tensors are.
    """

    size: int
    one_by_one: bool

    @classmethod
    def of(cls, size: int) -> Fill:
        """That of a draw of so many numbers."""
        return cls(size, one_by_one=size < _BLOCK)

    @property
    def repeats(self) -> bool:
        """Whether many of them are one longer fill."""
        return self.one_by_one or self.size % _BLOCK == 0

    def joined(self, other: Fill) -> Fill | None:
        """Itself and the next one as one fill; None if that would be other numbers."""
        if not (self.repeats and other.repeats) or self.one_by_one != other.one_by_one:
            return None
        return Fill(self.size + other.size, self.one_by_one)

    def memory(self, count: int, dtype: torch.dtype) -> Tensor:  # (count, size)
        """Where the numbers of so many calls go.

        Torch fills memory with gaps one by one, however much there is.
        """
        if not self.one_by_one:
            return torch.empty(count, self.size, dtype=dtype)
        return torch.empty(count, self.size, 2, dtype=dtype)[..., 0]


@dataclass(frozen=True)
class Noise:
    """Standard normal draws of known shapes, one after the other.

    Consecutive draws are one call where that consumes the generator alike: all of them smaller
    than 16 numbers, or every draw a multiple of 16.

    Attributes:
        shapes: of the draws.
        dtype: theirs.
        fills: the calls.

    Example:
        >>> noise = Noise.of_shapes([(), (3,)], torch.float32)
        >>> _ = torch.manual_seed(0)
        >>> apart = torch.randn(()), torch.randn(3)
        >>> _ = torch.manual_seed(0)
        >>> together = noise.split(noise.once())
        >>> all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
        True
        >>> noise.fills
        (Fill(size=4, one_by_one=True),)
    """

    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    fills: tuple[Fill, ...]

    @classmethod
    def of_shapes(cls, shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> Noise:
        """Plan the calls for some draws."""
        fills: list[Fill] = []
        for shape in shapes:
            fill = Fill.of(torch.Size(shape).numel())
            joined = fills[-1].joined(fill) if fills else None
            if joined is None:
                fills.append(fill)
            else:
                fills[-1] = joined
        return cls(tuple(tuple(s) for s in shapes), dtype, tuple(fills))

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

    def columns(self, count: int) -> list[Tensor]:  # each (count, size)
        """Draw for so many steps: for every call its results, one row per step."""
        memory = [fill.memory(count, self.dtype) for fill in self.fills]
        if len(self.fills) == 1 and self.fills[0].repeats:
            memory[0].normal_()
        else:
            for step in zip(*(part.unbind(0) for part in memory), strict=True):
                for row in step:
                    row.normal_()
        return [part.contiguous() for part in memory]

    def once(self) -> list[Tensor]:
        """Draw for one step: the results of the calls."""
        return [column[0] for column in self.columns(1)]

    def places(self) -> list[tuple[int, int, int]]:
        """For every draw the call that gives it, and where it begins and ends in its result."""
        found, group, start = [], 0, 0
        for shape in self.shapes:
            size = torch.Size(shape).numel()
            if start + size > self.fills[group].size:
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


def _is_standard_normal(node: Node) -> bool:
    target: Any = node.target
    if target is _ATEN.randn.default:
        return node.kwargs.get("generator") is None
    if target is not _ATEN.normal_.default or not isinstance(node.args[0], Node):
        return False
    fresh = node.args[0].target in _FRESH
    return fresh and tuple(node.args[1:]) in ((), (0.0,), (0.0, 1.0)) and not node.kwargs
