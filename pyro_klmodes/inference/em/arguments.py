"""Arguments of EM, looked at before anything is run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.acceleration import Accelerator
from pyro_klmodes.inference.calling import shown
from pyro_klmodes.inference.em.e_step import EStep
from pyro_klmodes.inference.em.online import StepSizes
from pyro_klmodes.inference.em.optimise import LBFGS
from pyro_klmodes.inference.em.starts import From, RandomStarts, Starts
from pyro_klmodes.inference.iterate_log import checked_whole

__all__ = ["as_starts", "check_lengths", "checked_options"]

_STEPS, _EPOCHS = 1000, 5


def checked_options(
    *,
    model: Any,
    e_step: Any,
    points: Any,
    acceleration: Any,
    floor: Any,
    optimizer: Any,
    online: Any,
) -> None:
    """Refuse options of the wrong kind.

    Raises:
        InvalidArgument: naming the argument, and what to pass.
    """
    if isinstance(model, type):
        raise InvalidArgument(f"model is {shown(model)}; make an object of it.")
    if not callable(model):
        raise InvalidArgument(f"model is {shown(model)}; pass a Pyro model.")
    if isinstance(points, str):
        raise InvalidArgument(f"points={points!r}: pass a list of sites, [{points!r}].")
    if not isinstance(points, Collection):
        raise InvalidArgument(f'points is {shown(points)}; pass a list of sites, ["loc", ...].')
    if not (isinstance(floor, int | float) and 0 <= floor < math.inf):
        raise InvalidArgument(f"floor={floor!r} must be a number: a variance, zero or more.")
    known = {
        "e_step": (
            e_step,
            EStep,
            "Exact(), MonteCarlo(guide), Variational(guide) or CoordinateAscent()",
        ),
        "acceleration": (acceleration, Accelerator, "Plain(), Squarem() or Anderson()"),
        "optimizer": (optimizer, LBFGS, "LBFGS()"),
        "online": (online, StepSizes, "StepSizes()"),
    }
    for name, (value, kind, instead) in known.items():
        if value is not None and not isinstance(value, kind):
            raise InvalidArgument(f"{name} is {shown(value)}; pass {instead}.")


def as_starts(starts: Any) -> Starts:
    """Where to start, from a number or values too.

    Raises:
        InvalidArgument: if it is something else.
    """
    if isinstance(starts, Starts):
        return starts
    if isinstance(starts, Mapping) and starts:
        return From(starts)
    if isinstance(starts, int) and not isinstance(starts, bool) and starts >= 1:
        return RandomStarts(starts)
    given = "{}" if starts == {} else shown(starts)
    raise InvalidArgument(
        f"starts={given}: pass how many, at least 1; KMeansPlusPlus(20) or RandomStarts(20); or "
        "values {parameter: (R, *shape)}."
    )


def check_lengths(
    steps: Any, epochs: Any, tolerance: Any, seed: Any, *, online: bool
) -> tuple[int, int]:
    """How many steps, and how many passes over the batches of online EM.

    Raises:
        InvalidArgument: naming the argument, also if it means nothing in this fit.
    """
    if online and steps is not None:
        raise InvalidArgument(
            f"steps={steps!r}: online EM takes a step for every batch; say how often to go through "
            "them by epochs=."
        )
    if epochs is not None and not online:
        raise InvalidArgument(
            f"epochs={epochs!r} counts passes over the batches of online EM, which this is not. "
            "Pass steps= for the most steps, or EM(model, online=StepSizes()) and batches=."
        )
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance < math.inf:
        raise InvalidArgument(f"tolerance={shown(tolerance)} must be a positive number.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidArgument(f"seed={shown(seed)} must be an integer.")
    return (
        checked_whole("steps", _STEPS if steps is None else steps, 1),
        checked_whole("epochs", _EPOCHS if epochs is None else epochs, 1),
    )
