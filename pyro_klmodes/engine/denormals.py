"""Numbers too small for their exponent count as zero inside: processors are slow with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["flushed"]


@contextmanager
def flushed() -> Iterator[None]:
    """Take numbers below 1.2e-38 (2.2e-308 in double precision) as zero in this thread.

    Weights of importance sampling underflow into them by the thousand, and each costs a hundred
    times as much as another number. Nothing happens on processors that cannot do so.

    Example:
        >>> tiny = torch.tensor(1e-40)
        >>> with flushed():
        ...     inside = float(tiny * 1.0)
        >>> inside, float(tiny * 1.0) > 0
        (0.0, True)
    """
    before = float(torch.tensor(1e-40, dtype=torch.float32) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
