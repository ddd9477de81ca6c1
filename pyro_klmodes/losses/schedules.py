"""Numbers that change while a loss is trained: constants, or functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.losses.checks import check_count

__all__ = ["Schedule", "alternating", "checked_schedule", "cyclical", "linear", "value_at"]

#: a number, or a function of the number of gradients taken so far that gives one
Schedule = float | Callable[[int], float]


def value_at(schedule: Schedule, step: int, name: str = "schedule") -> float:
    """The number that a schedule gives at a step.

    Raises:
        InvalidArgument: naming the argument, if that is negative or not a finite number.

    Example:
        >>> value_at(0.5, step=7), value_at(lambda step: step / 10, step=7)
        (0.5, 0.7)
    """
    value = schedule(step) if callable(schedule) else schedule
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise InvalidArgument(
            f"{name} is {value!r} at step {step}; it must be a finite number and not negative."
        )
    return float(value)


def checked_schedule(name: str, schedule: Schedule) -> Schedule:
    """The schedule itself, after a look at its first value.

    Raises:
        InvalidArgument: naming the argument, if the value is negative or not a finite number.
    """
    value_at(schedule, 0, name)
    return schedule


def linear(start: float, end: float, steps: int) -> Callable[[int], float]:
    """From ``start`` to ``end`` in equal steps, and ``end`` from then on.

    Used as a warm-up of the rate by Bowman et al. (2016) and Sonderby et al. (2016).

    Example:
        >>> warm_up = linear(0.0, 1.0, steps=100)
        >>> warm_up(0), warm_up(50), warm_up(500)
        (0.0, 0.5, 1.0)
    """
    check_count("steps", steps)
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def cyclical(start: float, end: float, period: int, rising: float = 0.5) -> Callable[[int], float]:
    """From ``start`` to ``end`` again and again: linear in the first share of every period.

    Args:
        start: the value at the beginning of a period.
        end: the value from ``rising * period`` steps on, to the end of the period.
        period: in steps.
        rising: the share of a period in which the value changes, in ``(0, 1]``.

    Source: Fu et al. (2019), "Cyclical annealing schedule".

    Example:
        >>> beta = cyclical(0.0, 1.0, period=100)
        >>> beta(0), beta(25), beta(75), beta(100)
        (0.0, 0.5, 1.0, 0.0)
    """
    check_count("period", period)
    if not 0 < rising <= 1:
        raise InvalidArgument(f"rising={rising!r} must be a share in (0, 1].")
    return lambda step: start + (end - start) * min(step % period / (rising * period), 1.0)


def alternating(*values: float) -> Callable[[int], float]:
    """One value after the other, and from the beginning.

    Example:
        >>> [alternating(1.0, 0.0)(step) for step in range(4)]
        [1.0, 0.0, 1.0, 0.0]
    """
    if not values:
        raise InvalidArgument("alternating() needs at least one value.")
    cycle: Sequence[float] = values
    return lambda step: cycle[step % len(cycle)]
