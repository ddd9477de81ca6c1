"""A training run that goes on for any number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """What a contestant made of a cell.

    Attributes:
        block: takes so many steps of noise, loss, gradient and Adam, and returns the last loss.
        chunk: the number of steps must be a multiple of this.
    """

    block: Callable[[int], float]
    chunk: int = 1
