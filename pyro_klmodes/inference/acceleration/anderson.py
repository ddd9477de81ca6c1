"""Anderson acceleration: the combination of the last points with the least residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.acceleration.base import Accelerator, Point
from pyro_klmodes.inference.iterate_log import checked_whole

__all__ = ["Anderson"]


@dataclass
class _Memory:
    before: Tensor  # (R, P), the last accepted point
    residual: Tensor  # (R, P), there
    points: Tensor  # (R, P, depth), differences of accepted points, the newest first
    residuals: Tensor  # (R, P, depth), and of their residuals
    empty: bool = True


@dataclass(frozen=True)
class Anderson(Accelerator):
    r"""Anderson acceleration of type II, which is a multisecant quasi-Newton method.

    With the residual :math:`f_k = F(\theta_k) - \theta_k` and the differences of the last m points
    and residuals as columns of :math:`X_k` and :math:`R_k`,

    .. math::
        \gamma = \arg\min \| f_k - R_k \gamma \|, \quad
        \theta_{k+1} = \theta_k + f_k - (X_k + R_k) \gamma .

    On an affine map of m dimensions it is at the fixed point after m + 1 evaluations. The least
    squares are solved by a QR decomposition with columns of length one and Tikhonov's term of
    ``eps^(2/3)``, so that residuals which are linearly dependent do no harm. Where the value at a
    proposal is worse than at the point before it, or not finite, the next point is F of that
    point, and the row starts again with an empty memory.

    Args:
        depth: how many differences it remembers, at least 1. There is no use in more than the map
            has dimensions.

    Raises:
        InvalidArgument: for a depth that is no number of at least 1.

    Source: Anderson (1965), "Iterative procedures for nonlinear integral equations"; Walker and Ni
        (2011), "Anderson acceleration for fixed-point iterations"; Henderson and Varadhan (2019),
        "Damped Anderson acceleration with restarts and monotonicity control for accelerating EM".

    Example:
        >>> Anderson()
        Anderson(depth=3)
    """

    depth: int = 3

    def __post_init__(self) -> None:
        checked_whole("depth", self.depth, 1)

    def start(
        self,
        state: Tensor,  # (R, P)
    ) -> Any:
        """No differences yet."""
        nothing = state.new_zeros(*state.shape, self.depth)
        return _Memory(torch.zeros_like(state), torch.zeros_like(state), nothing, nothing)

    def propose(
        self,
        memory: Any,
        point: Point,
    ) -> Tensor:  # (R, P)
        """The map, corrected along the differences."""
        residual = point.residual
        if not memory.empty:
            new = (point.theta - memory.before)[..., None]
            memory.points = torch.cat([new, memory.points[..., :-1]], -1)
            new = (residual - memory.residual)[..., None]
            memory.residuals = torch.cat([new, memory.residuals[..., :-1]], -1)
        memory.before, memory.residual, memory.empty = point.theta, residual, False

        keep = point.accepted[:, None, None]
        memory.points = torch.where(keep, memory.points, 0.0)
        memory.residuals = torch.where(keep, memory.residuals, 0.0)
        weights = _least_squares(memory.residuals, residual)
        correction = (memory.points + memory.residuals) @ weights[..., None]
        return point.mapped - correction[..., 0]


def _least_squares(
    matrix: Tensor,  # (R, P, depth), columns of zeros count for nothing
    target: Tensor,  # (R, P)
) -> Tensor:  # (R, depth)
    """The regularised solution of ``matrix @ x = target``, for rows of any scale."""
    rows, _, depth = matrix.shape
    lengths = matrix.norm(dim=-2)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    ridge = torch.finfo(matrix.dtype).eps ** (2 / 3)
    identity = torch.eye(depth, dtype=matrix.dtype, device=matrix.device)
    stacked = torch.cat([matrix / lengths[:, None], (ridge * identity).expand(rows, -1, -1)], -2)
    padded = torch.cat([target, target.new_zeros(rows, depth)], -1)
    q, r = torch.linalg.qr(stacked)
    scaled = torch.linalg.solve_triangular(r, q.mT @ padded[..., None], upper=True)
    return scaled[..., 0] / lengths
