"""Where every row of a fixed-point iteration stands, and what it accepts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.inference.acceleration.base import Point
from pyro_klmodes.inference.acceleration.trajectory import Trajectory

__all__ = ["Rows"]

_ROUNDING = 64  # units in the last place by which sums of the same value may differ
_STILL = 16  # and by which an entry may move that has arrived


class Rows:
    """The accepted points of all rows, and the points under trial."""

    def __init__(self, theta: Tensor) -> None:
        rows = len(theta)
        self.tried = self.theta = self.mapped = theta
        self.value = self.best = theta.new_full((rows,), -math.inf)
        self.residual = theta.new_full((rows,), math.inf)
        nothing = torch.zeros(rows, dtype=torch.long, device=theta.device)
        self.evaluations = self.rejected = self.waited = nothing
        self.converged = self.failed = nothing.bool()
        self.values: list[Tensor] = []

    @property
    def active(self) -> Tensor:  # (R,)
        """The rows that go on."""
        return ~(self.converged | self.failed)

    def update(
        self,
        mapped: Tensor,  # (R, P)
        value: Tensor,  # (R,)
        tolerance: float,
        patience: int,
    ) -> Point:
        """Accept the points under trial, wait for them to become better, or give them up."""
        active = self.active
        self.evaluations = self.evaluations + active
        plain = (self.tried == self.mapped).all(-1)
        mappable = mapped.isfinite().all(-1)
        finite = mappable & value.isfinite()
        rounding = _ROUNDING * torch.finfo(value.dtype).eps * (1 + value.abs())
        accepted = active & finite & (plain | (value >= self.best - rounding))
        waiting = active & ~plain & ~accepted & mappable & (self.waited < patience)
        self.waited = torch.where(waiting, self.waited + 1, 0)
        self.rejected = self.rejected + (active & ~plain & ~accepted & ~waiting)
        self.failed = self.failed | (active & plain & ~finite)

        distance = (mapped - self.tried).abs().amax(-1)
        self.theta = torch.where(accepted[:, None], self.tried, self.theta)
        self.mapped = torch.where(accepted[:, None], mapped, self.mapped)
        self.value = torch.where(accepted, value, self.value)
        self.best = torch.where(accepted, self.best.max(value), self.best)
        self.residual = torch.where(accepted, distance, self.residual)
        least = _STILL * torch.finfo(mapped.dtype).eps * mapped.abs()
        still = ((mapped - self.tried).abs() < least.clamp(min=tolerance)).all(-1)
        self.converged = self.converged | (accepted & still)
        self.values.append(self.value)
        return Point(self.theta, self.mapped, accepted, waiting)

    def trajectory(self, *, interrupted: bool = False) -> Trajectory:
        """What there is to report."""
        return Trajectory(
            theta=self.theta,
            mapped=self.mapped,
            value=self.value,
            residual=self.residual,
            converged=self.converged,
            failed=self.failed,
            evaluations=self.evaluations,
            rejected=self.rejected,
            values=torch.stack(self.values),
            interrupted=interrupted,
        )
