"""Looking at a pair must not change what is drawn after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyro.util import get_rng_state, set_rng_state

__all__ = ["same_random_state"]


@contextmanager
def same_random_state() -> Iterator[None]:
    """Restore the states of torch's, numpy's and Python's generators at the end.

    A loss then draws the same numbers from the same seed whether or not it has seen a pair before.
    """
    before = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
