"""Checks of the numbers that losses are built with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_klmodes.errors import InvalidArgument

__all__ = ["check_count", "checked_broad", "checked_share", "is_count"]


def is_count(value: Any, least: int) -> bool:
    """Whether a value is an integer of at least this size."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_count(name: str, value: Any) -> None:
    """Refuse what is no positive integer.

    Raises:
        InvalidArgument: naming the argument.
    """
    if not is_count(value, least=1):
        raise InvalidArgument(f"{name}={value!r} must be a positive integer.")


def checked_share(name: str, value: Any) -> float:
    """A share of particles.

    Raises:
        InvalidArgument: naming the argument, if it is not in ``[0, 1)``.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value < 1.0:
        raise InvalidArgument(f"{name}={value!r} must be a share in [0, 1), for instance 0.1.")
    return float(value)


def checked_broad(broad: Any, defensive: float) -> Callable[..., Any] | None:
    """A guide that draws the defensive particles, if there are any.

    Raises:
        InvalidArgument: if it is no guide, or has nothing to draw.
    """
    if broad is None:
        return None
    if not callable(broad):
        raise InvalidArgument(f"broad={broad!r} must be a guide, or None for the model's prior.")
    if defensive == 0.0:
        raise InvalidArgument("broad= draws the defensive particles: pass defensive=0.1, say.")
    guide: Callable[..., Any] = broad
    return guide
