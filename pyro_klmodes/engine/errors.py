"""Why a step is not compiled; caught by the engine, which then goes on without."""

from __future__ import annotations

from pyro_klmodes.errors import KLModesError

__all__ = ["CannotLift"]


class CannotLift(KLModesError):
    """The step is not a fixed function of parameters, data and random numbers; says why."""
