"""What about the arguments of a model decides about its structure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["Signatures"]

# A model called with a step counter would have a new signature every time.
_KEPT = 64


class Signatures:
    """Something known for calls whose arguments have the same shape.

    Shapes of tensors and the values of flags, counts and names may change which sites and plates a
    model has. The numbers inside of tensors, and numbers that are not whole, are taken not to.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What was put for such arguments, or None."""
        return self._known.get(_signature((args, kwargs)))

    def put(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], value: Any) -> None:
        """Remember a value for such arguments."""
        self._known[_signature((args, kwargs))] = value
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)


def _signature(x: Any) -> Hashable:
    if isinstance(x, Tensor):
        return tuple(x.shape)
    if isinstance(x, Mapping):
        return tuple((k, _signature(v)) for k, v in x.items())
    if isinstance(x, tuple | list):
        return tuple(_signature(v) for v in x)
    if x is None or isinstance(x, bool | int | str):
        return x
    return getattr(x, "shape", type(x).__qualname__)
