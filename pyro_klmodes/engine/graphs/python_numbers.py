"""Numbers of Python that became tensors, and what is computed from these alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.node import map_aggregate
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["PythonNumbers"]

_COPY = torch.ops.aten.lift_fresh_copy.default


class PythonNumbers:
    """What of a recording is a single number, and the same in every run.

    A function may look at those, as in ``torch.tensor(3.0).item()``; that is no branch on its
    inputs. They are computed twice, once here from copies, as tensors may be written to.
    """

    def __init__(self) -> None:
        self._twins = WeakTensorKeyDictionary()

    def hold(self, tensors: Sequence[Tensor]) -> bool:
        """Whether all of these are such numbers."""
        return all(x in self._twins for x in tensors)

    def compute(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call on such numbers, and on constants."""
        return func(*map_aggregate(args, self._twin), **map_aggregate(dict(kwargs), self._twin))

    def note(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        recorded: Sequence[Tensor],  # among the arguments
        result: Any,
    ) -> None:
        """Look whether a call was made of such numbers alone."""
        if func is _COPY and result.numel() == 1:
            self._twins[result] = result.clone()
        elif recorded and self.hold(recorded):
            if torch.Tag.nondeterministic_seeded not in func.tags and _is_small(result):
                self._add(result, self.compute(func, args, kwargs))
        elif func._schema.is_mutable:
            self._forget([self._twins[x] for x in recorded if x in self._twins])

    def _twin(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return self._twins[x] if x in self._twins else x.clone()

    def _add(self, result: Any, twin: Any) -> None:
        if isinstance(result, Tensor):
            self._twins[result] = twin
        elif isinstance(result, list | tuple):
            for x, y in zip(result, twin, strict=True):
                self._add(x, y)

    def _forget(self, written: Sequence[Tensor]) -> None:
        """What depends on inputs was written to these numbers, and all that share their memory."""
        memory = {x.untyped_storage()._cdata for x in written}
        for x, twin in list(self._twins.items()):
            if twin.untyped_storage()._cdata in memory:
                del self._twins[x]


def _is_small(result: Any) -> bool:
    if isinstance(result, list | tuple):
        return all(_is_small(x) for x in result)
    return not isinstance(result, Tensor) or result.numel() <= 1
