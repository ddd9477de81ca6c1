"""What an accelerator is: where to evaluate a fixed-point map next, given where it has been."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Accelerator", "Point"]


class Point(NamedTuple):
    """Where each of R iterations stands: the last point that it accepted.

    Attributes:
        theta: the points.
        mapped: the fixed-point map F there.
        accepted: whether the point was evaluated just now. Otherwise the last proposal was worse.
        waiting: whether plain steps from that proposal are being taken, which may yet end at a
            better point. What is proposed meanwhile is ignored. Where the last proposal was
            neither accepted nor is waiting, it is given up, and a plain step from theta follows.
    """

    theta: Tensor  # (R, P)
    mapped: Tensor  # (R, P)
    accepted: Tensor  # (R,), bool
    waiting: Tensor  # (R,), bool

    @property
    def residual(self) -> Tensor:  # (R, P)
        """``F(theta) - theta``."""
        return self.mapped - self.theta


class Accelerator(ABC):
    """A rule for the next point of a fixed-point iteration, for R independent ones at a time.

    It is a value, a frozen dataclass of options: what it remembers of a run is in a memory of its
    own, so one accelerator serves any number of runs. ``iterate`` evaluates the map, and falls
    back to the map itself, ``F(theta)``, wherever a proposal turns out to be worse than the point
    it was made from. An accelerator that proposes ``mapped`` proposes a plain step.

    Attributes:
        patience: how many plain steps a proposal that is worse may take to become better.
    """

    patience: int = 0

    @abstractmethod
    def start(
        self,
        state: Tensor,  # (R, P)
    ) -> Any:
        """An empty memory for iterations that start at ``state``."""

    @abstractmethod
    def propose(
        self,
        memory: Any,
        point: Point,
    ) -> Tensor:  # (R, P)
        """Where to evaluate next. Changes the memory, except that of the rows that wait."""
