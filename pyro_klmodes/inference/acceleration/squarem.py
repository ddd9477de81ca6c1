"""SQUAREM: one long step along two steps of the map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.acceleration.base import Accelerator, Point
from pyro_klmodes.inference.iterate_log import checked_whole

__all__ = ["Squarem"]

_FIRST, _SECOND, _STABILISE = 0, 1, 2
_NO_EXTRAPOLATION = 0.01


@dataclass
class _Memory:
    phase: Tensor  # (R,)
    longest: Tensor  # (R,)
    base: Tensor  # (R, P)
    step: Tensor  # (R, P), r
    length: Tensor  # (R,), of the extrapolation under trial


@dataclass(frozen=True)
class Squarem(Accelerator):
    r"""Squared extrapolation, scheme S3. A cycle evaluates the map three times:

    .. math::
        r = F(\theta) - \theta, \quad v = F(F(\theta)) - 2 F(\theta) + \theta, \quad
        s = \|r\| / \|v\|, \\ \theta' = \theta + 2 s r + s^2 v, \quad \theta \leftarrow F(\theta')

    with s between ``shortest`` and a longest step that starts at ``longest``, grows by ``factor``
    whenever a step of that length succeeds, and shrinks by it when one fails. For s = 1 the point
    is F(F(theta)), an ordinary step, and a cycle evaluates the map twice. Where the value at
    theta' is worse than at F(theta), up to ``patience`` more steps of the map are taken from
    there, until it is not: the map undoes quickly what the step overshot in the directions of its
    small eigenvalues. If the value stays worse, the cycle ends at F(F(theta)).

    Args:
        shortest: least step length, positive.
        longest: longest step length at the start, at least ``shortest``.
        factor: how fast the longest step grows and shrinks, above 1.
        patience: how many steps may repair an extrapolation; 0 for none.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Varadhan and Roland (2008), "Simple and globally convergent methods for accelerating
        the convergence of any EM algorithm"; the rule for the longest step is that of their R
        package SQUAREM. Theirs lets the value fall by 1 in a cycle; here it never falls, for which
        patience is needed.

    Example:
        >>> Squarem()
        Squarem(shortest=1.0, longest=1.0, factor=4.0, patience=6)
    """

    shortest: float = 1.0
    longest: float = 1.0
    factor: float = 4.0
    patience: int = 6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shortest) and self.shortest > 0):
            raise InvalidArgument(f"shortest={self.shortest!r} must be a positive number.")
        if not (math.isfinite(self.longest) and self.longest >= self.shortest):
            raise InvalidArgument(
                f"longest={self.longest!r} must be at least shortest={self.shortest!r}, and finite."
            )
        if not (math.isfinite(self.factor) and self.factor > 1):
            raise InvalidArgument(f"factor={self.factor!r} must be a number above 1.")
        checked_whole("patience", self.patience, 0)

    def start(
        self,
        state: Tensor,  # (R, P)
    ) -> Any:
        """All rows at the beginning of a cycle."""
        rows = state.new_ones(len(state))
        return _Memory(
            phase=torch.full_like(rows, _FIRST, dtype=torch.long),
            longest=rows * self.longest,
            base=torch.zeros_like(state),
            step=torch.zeros_like(state),
            length=rows,
        )

    def propose(
        self,
        memory: Any,
        point: Point,
    ) -> Tensor:  # (R, P)
        """The map in the first and third phase of a cycle, the extrapolation in the second."""
        phase = memory.phase
        first, second = phase == _FIRST, phase == _SECOND
        last = (phase == _STABILISE) & ~point.waiting
        residual = point.residual
        curvature = residual - memory.step
        length = residual.new_tensor(self.shortest).max(_ratio(memory.step, curvature))
        length = length.min(memory.longest)
        along = length[:, None]
        far = memory.base + 2 * along * memory.step + along**2 * curvature
        extrapolates = second & ((length - 1).abs() > _NO_EXTRAPOLATION)
        ordinary = second & ~extrapolates  # counts as a success of its length
        tried = torch.where(last, memory.length, length)
        at_bound = (last | ordinary) & (tried == memory.longest)
        self._judge(memory, at_bound, ordinary | point.accepted)

        memory.base = torch.where(first[:, None], point.theta, memory.base)
        memory.step = torch.where(first[:, None], residual, memory.step)
        memory.length = torch.where(extrapolates, length, memory.length)
        following = torch.full_like(phase, _FIRST)
        following[first] = _SECOND
        following[extrapolates] = _STABILISE
        memory.phase = torch.where(point.waiting, phase, following)
        return torch.where(extrapolates[:, None], far, point.mapped)

    def _judge(
        self,
        memory: Any,
        at_bound: Tensor,  # (R,), bool
        well: Tensor,  # (R,), bool
    ) -> None:
        """Widen or narrow the bound of the rows that have just made a step as long as allowed."""
        wider = memory.longest * self.factor
        narrower = (memory.longest / self.factor).clamp(min=self.longest)
        memory.longest = torch.where(at_bound, torch.where(well, wider, narrower), memory.longest)


def _ratio(
    step: Tensor,  # (R, P)
    curvature: Tensor,  # (R, P)
) -> Tensor:  # (R,)
    """``|r| / |v|``; one where both are zero, at a fixed point."""
    r, v = step.norm(dim=-1), curvature.norm(dim=-1)
    return torch.where(r > 0, r / v, torch.ones_like(r))
