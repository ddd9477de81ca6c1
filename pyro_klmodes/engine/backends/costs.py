"""Roughly how long compiling takes and what a step costs then, to choose between the tiers.

The choice must not depend on the moment, so nothing is measured when it is made. The numbers are
CPU time on one core of a cloud machine (AMD EPYC, torch 2.13, g++ 12) for steps with gradient and
Adam of a state-space model with 96 to 3500 operations; they say which tier is right when the
difference is large, and no more.
"""

from __future__ import annotations

from pyro_klmodes.engine.backends.program import Tier

__all__ = ["compile_seconds", "step_seconds"]

# seconds: once, and per operation
_COMPILE: dict[Tier, tuple[float, float]] = {
    "graph": (0.0, 1e-4),
    "inductor": (2.0, 7e-3),
    "aot": (8.0, 9e-3),
}
_STEP: dict[Tier, tuple[float, float]] = {
    "graph": (1e-6, 1.7e-6),
    "inductor": (8e-6, 1.8e-8),
    "aot": (2.5e-6, 2e-9),
}


def compile_seconds(tier: Tier, operations: int) -> float:
    """What it takes to build a program of so many operations, if nothing is kept of it.

    The first program of all on a machine takes a compiled tier some ten seconds more.

    Example:
        >>> [round(compile_seconds(tier, 500)) for tier in ("graph", "inductor", "aot")]
        [0, 6, 12]
    """
    once, each = _COMPILE[tier]
    return once + each * operations


def step_seconds(tier: Tier, operations: int) -> float:
    """What a call of a program of so many operations on a few numbers takes.

    Work on large arrays comes on top, and takes all tiers about the same.

    Example:
        >>> [f"{step_seconds(tier, 200) * 1e6:.0f} us" for tier in ("graph", "inductor", "aot")]
        ['341 us', '12 us', '3 us']
    """
    once, each = _STEP[tier]
    return once + each * operations
