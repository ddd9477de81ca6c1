"""What iterations of a fixed-point map report, on the way and at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

__all__ = ["Progress", "Trajectory"]


class Progress(NamedTuple):
    """What a callback is told after every evaluation. Do not change its tensors.

    Attributes:
        evaluation: its number, from 0.
        theta: the accepted points.
        value: the objective there.
        residual: the largest entry of ``|F(theta) - theta|``.
        active: the rows that go on.
    """

    evaluation: int
    theta: Tensor  # (R, P)
    value: Tensor  # (R,)
    residual: Tensor  # (R,)
    active: Tensor  # (R,), bool


@dataclass(frozen=True)
class Trajectory:
    """Where the iterations ended, and how.

    Attributes:
        theta: the last accepted points.
        mapped: the map there, one step further, whose value is not known.
        value: the objective at ``theta``.
        residual: the largest entry of ``|mapped - theta|``.
        converged: whether that was below the tolerance, or the rounding errors.
        failed: where the iteration ended since map or objective were not finite, be it at the
            start or after a plain step.
        evaluations: how often the map was needed.
        rejected: how many proposals were worse than the point they were made from, or not finite.
        values: the objective at the accepted point after every evaluation. It never falls, but
            for rounding, unless it falls along the map itself.
        interrupted: whether Ctrl-C ended the iterations.
    """

    theta: Tensor  # (R, P)
    mapped: Tensor  # (R, P)
    value: Tensor  # (R,)
    residual: Tensor  # (R,)
    converged: Tensor  # (R,), bool
    failed: Tensor  # (R,), bool
    evaluations: Tensor  # (R,)
    rejected: Tensor  # (R,)
    values: Tensor  # (T, R)
    interrupted: bool = False
