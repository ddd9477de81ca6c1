"""What tells that a Python value is another one than before, or was changed in place."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["fingerprint", "state_of"]

#: how long a container may be whose elements are looked at one by one
LONGEST = 100
#: larger arrays are looked at here and there
_LARGEST_ARRAY = 2**20
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)


class Same:
    """Equal to itself only; keeps the object alive, so that no other one can take its place."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def fingerprint(x: Any) -> tuple[Any, bool]:
    """A value to compare, None if there is nothing to compare, and whether that is all of it."""
    if isinstance(x, _PLAIN):
        return (type(x), repr(x)), True  # by repr: nan is itself, and -0.0 is not 0.0
    if isinstance(x, torch.Tensor):
        return _of_tensor(x), True
    if isinstance(x, np.ndarray):
        return (Same(x), x.shape, hash(_sample(x).tobytes())), x.dtype != object
    if isinstance(x, np.random.Generator):
        return (Same(x), repr(x.bit_generator.state)), True
    if isinstance(x, np.random.RandomState):
        return (Same(x), state_of(x.get_state())), True
    if isinstance(x, random.Random):
        return (Same(x), x.getstate()), True
    if isinstance(x, torch.Generator):
        return (Same(x), x.get_state().numpy().tobytes()), True
    if isinstance(x, Iterator):
        return object(), True  # nobody can tell where it is without moving it on
    if isinstance(x, bytearray):
        return (Same(x), bytes(x)), True
    if isinstance(x, list | tuple | set | frozenset | deque):
        return _of_many(x, x), False
    if isinstance(x, Mapping):
        return _of_many(x, (part for item in x.items() for part in item)), False
    return Same(x), False


def state_of(state: Any) -> Any:
    """The state of one of numpy's generators as something that can be compared."""
    return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in state)


def _of_tensor(x: torch.Tensor) -> Any:
    if x.requires_grad or isinstance(x, torch.nn.Parameter):
        return None  # it is learned, or a graph that holds it is told apart by itself
    return Same(x), None if x.is_inference() else x._version


def _of_many(x: Any, parts: Any) -> Any:
    """Of short containers the length, as their elements are looked at; of long ones all of it."""
    if len(x) <= LONGEST:
        # a tuple made anew with the same elements is the same
        return len(x)
    return len(x), hash(tuple(p if isinstance(p, _PLAIN) else id(p) for p in parts))


def _sample(x: np.ndarray) -> np.ndarray:
    if x.nbytes <= _LARGEST_ARRAY:
        return x
    return x.reshape(-1)[:: 1 + x.nbytes // _LARGEST_ARRAY]
