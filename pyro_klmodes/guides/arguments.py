"""Checks of arguments that several guides have in common."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from pyro_klmodes.errors import InvalidArgument

__all__ = ["RADIALS", "SCALES", "check_callable", "check_kind", "positive_number"]

#: the choices of arguments that several guides have
SCALES = "Diagonal(), LowRank(rank) or Full()"
RADIALS = "Gaussian() or StudentT(df)"


def positive_number(name: str, value: Any, otherwise: str = "") -> float:
    """The value as a number, positive and finite.

    Raises:
        InvalidArgument: if it is none, naming the argument, and what to use otherwise.
    """
    # True and False count as numbers in Python
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise InvalidArgument(f"{name}={value!r} must be a positive finite number{otherwise}.")
    return float(value)


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], choices: str) -> None:
    """Refuse what is no instance, naming the argument and the choices."""
    if not isinstance(value, kind):
        raise InvalidArgument(f"{name}={value!r} must be {choices}.")


def check_callable(name: str, value: Any, what: str) -> None:
    """Refuse what cannot be called, naming the argument and what it should be."""
    # classes can be called, and would make an instance of themselves of whatever they get
    if not callable(value) or isinstance(value, type):
        raise InvalidArgument(f"{name}={value!r} must be {what}.")
