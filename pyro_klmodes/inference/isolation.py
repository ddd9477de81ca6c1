"""A fit touches nothing outside of itself: random states and param store are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from pyro.util import get_rng_state, set_rng_state

__all__ = ["seeded"]


@contextmanager
def seeded(
    seed: int | None,
) -> Iterator[None]:
    """Seed torch's, numpy's and Python's generators inside, and restore them after.

    With None they keep their state inside, and are restored all the same.
    """
    before = get_rng_state()
    try:
        if seed is not None:
            pyro.set_rng_seed(seed)
        yield
    finally:
        set_rng_state(before)
