"""The modules of zuko that are used here; the only file that imports it.

Importing zuko 1.6 turns off the validation of arguments of *all* torch and Pyro distributions in
the process (``Distribution._validate_args = False`` in its ``distributions.py``). A scale of -1
would no longer be refused anywhere in a user's script, so the setting is put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributions import Distribution

__all__ = [
    "GeneralCouplingTransform",
    "LazyComposedTransform",
    "MaskedAutoregressiveTransform",
    "MonotonicAffineTransform",
    "MonotonicRQSTransform",
]


@contextmanager
def _same_validation() -> Iterator[None]:
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


with _same_validation():
    from zuko.flows.autoregressive import MaskedAutoregressiveTransform
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.lazy import LazyComposedTransform
    from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform
