"""Eager torch with less work on large blocks: the same numbers, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Lean"]

#: results of fewer numbers are not worth a look
_LARGE = 2**14


class Lean(TorchDispatchMode):
    """Inside, what is repeated is computed once, and rows are copied whole.

    Distributions expand their parameters to the shape of their batch: the logarithm of one scale is
    then taken for every draw and datum. Where all arguments of an elementwise operation are
    repeated along a dimension, it is done once, and its result repeated. And ``a[county]`` with
    one index copies rows, which ``index_select`` does several times faster.

    It is for runs without gradients.

    Raises:
        RuntimeError: if anything is written to after a result was repeated: it could be that one,
            whose elements share their memory.

    Example:
        >>> with Lean(), torch.no_grad():
        ...     x = torch.full((1000, 1), 2.0).expand(1000, 900).log()
        >>> x.stride(), round(x[0, 0].item(), 4)
        ((1, 0), 0.6931)
    """

    def __init__(self) -> None:
        super().__init__()
        self._repeats = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do one operation."""
        named = dict(kwargs or {})
        if func is torch.ops.aten.index.Tensor:
            return _indexed(func, *args)
        if func._schema.is_mutable:
            if self._repeats:
                raise RuntimeError(f"{func} writes to what may be repeated")
        elif torch.Tag.pointwise in func.tags and not named:
            thin = _once(func, args)
            self._repeats |= thin is not None
            return func(*args) if thin is None else thin
        return func(*args, **named)


def _once(func: Callable[..., Any], args: tuple[Any, ...]) -> Tensor | None:
    """An elementwise operation with repeated elements taken once; None if there are none."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    if not any(x.numel() >= _LARGE and 0 in x.stride() for x in tensors):
        return None
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    repeated = [
        d
        for d in range(-len(shape), 0)
        if shape[d] > 1 and all(x.dim() < -d or x.size(d) == 1 or x.stride(d) == 0 for x in tensors)
    ]
    if not repeated:
        return None
    result: Tensor = func(*(_thin(x, repeated) if isinstance(x, Tensor) else x for x in args))
    return result.expand(shape)


def _thin(x: Tensor, dims: list[int]) -> Tensor:
    for d in dims:
        if x.dim() >= -d:
            x = x.narrow(d, 0, 1)
    return x


def _indexed(func: Callable[..., Any], x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Rows by one list of indices, along whichever dimension."""
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(given) == 1:
        ((dim, index),) = given
        if index.dim() == 1 and index.dtype == torch.long:
            return x.index_select(dim, torch.where(index < 0, index + x.size(dim), index))
    result: Tensor = func(x, indices)
    return result
