"""Distributions that were made before a step is written down check their values by branching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution

__all__ = ["Unvalidated"]


class Unvalidated(Messenger):
    """Switches off the validation of the distributions at all sites inside, and on again after.

    Pyro's own switch holds for distributions that are made while it is off. Priors of a
    ``PyroModule``, or those made outside of a model, were made before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._switched: list[Distribution] = []

    def _pyro_sample(self, msg: Any) -> None:
        for fn in _parts(msg["fn"]):
            if fn._validate_args:
                fn._validate_args = False
                self._switched.append(fn)

    def __exit__(self, *args: Any) -> None:
        for fn in self._switched:
            fn._validate_args = True
        self._switched.clear()
        super().__exit__(*args)


def _parts(fn: Any) -> Iterator[Any]:
    """A distribution and those that it is made of."""
    if isinstance(fn, Distribution):
        yield fn
        for part in vars(fn).values():
            yield from _parts(part)
