"""Elementwise operations on tensors without data, done once for all tensors of the same layouts.

Torch does them in Python, which takes longer than to compute with data; a graph has the same few
over and over, and every pass asks again.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

__all__ = ["has_known_layout", "pointwise"]


class _Sketch(NamedTuple):
    """An argument; by their kinds, 1, 1.0 and True are not taken for each other."""

    kind: Any  # the dtype of a tensor
    value: Any  # its shape and strides


def has_known_layout(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether layouts and numbers among the arguments say all of the result's layout."""
    listed = any(isinstance(x, list | tuple) for x in (*args, *kwargs.values()))
    return isinstance(target, OpOverload) and torch.Tag.pointwise in target.tags and not listed


def pointwise(target: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The result of a call for which that holds, on tensors without data.

    It belongs to others, too: neither it nor its layout may be changed.
    """
    named = tuple((name, _sketched(x)) for name, x in kwargs.items())
    return _done(target, tuple(map(_sketched, args)), named, torch.get_default_dtype())


@functools.lru_cache(maxsize=1024)
def _done(
    target: OpOverload,
    args: tuple[_Sketch, ...],
    kwargs: tuple[tuple[str, _Sketch], ...],
    default: torch.dtype,  # numbers become tensors of this dtype
) -> Any:
    return target(*map(_drawn, args), **{name: _drawn(x) for name, x in kwargs})


def _sketched(x: Any) -> _Sketch:
    if isinstance(x, Tensor):
        return _Sketch(x.dtype, (tuple(x.shape), x.stride()))
    return _Sketch(type(x), x)


def _drawn(x: _Sketch) -> Any:
    if not isinstance(x.kind, torch.dtype):
        return x.value
    shape, strides = x.value
    return torch.empty_strided(shape, strides, dtype=x.kind, device="meta")
