"""Drive a fixed-point map to its fixed points, from many starts in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.acceleration.base import Accelerator
from pyro_klmodes.inference.acceleration.rows import Rows
from pyro_klmodes.inference.acceleration.trajectory import Progress, Trajectory
from pyro_klmodes.inference.iterate_log import checked_whole

__all__ = ["iterate"]


def iterate(
    accelerator: Accelerator,
    theta0: Tensor,  # (R, P)
    step: Callable[..., tuple[Tensor, Tensor]],
    *,
    steps: int,
    tolerance: float,
    skip_converged: bool = False,
    callback: Callable[[Progress], object] | None = None,
) -> Trajectory:
    """Iterate ``theta <- F(theta)``, accelerated, until no entry of F(theta) - theta is large.

    Every row is an iteration of its own. A plain step is always taken; the proposal of an
    accelerator only where the objective there (or, for an accelerator with patience, a few plain
    steps from there) is at least what it was at the best point before, less 64 units of rounding,
    and map and objective are finite. Otherwise the next point is ``F(theta)``. The objective thus
    rises in every row if it rises along the map.

    Args:
        accelerator: ``Plain()``, ``Squarem()`` or ``Anderson()``.
        theta0: the starts.
        step: called with points ``(R, P)``, it returns F there, ``(R, P)``, and the objective *at
            these points*, ``(R,)``. An E-step of EM gives both. Outside of the support the
            objective is -inf or NaN; it must not be an error.
        steps: most evaluations of a row.
        tolerance: positive. It bounds the last step, not the distance from the fixed point, which
            is up to ``1 / (1 - rho)`` as large for a map with spectral radius rho. An entry that
            moves by no more than its rounding error (16 units in the last place) has arrived too.
        skip_converged: call ``step(points, rows)`` with the points ``(A, P)`` of the rows that go
            on and their numbers ``(A,)``, instead of all points.
        callback: called with a ``Progress`` after every evaluation; a true result ends it all.

    Returns:
        The trajectory; after Ctrl-C what there is of it, if there is one evaluation.

    Raises:
        InvalidArgument: for numbers out of range, for starts that are not finite, or if ``step``
            returns other shapes.

    Limits: iterations converge to *a* fixed point, which may be a saddle point or a local optimum.

    Example:
        >>> from pyro_klmodes.inference.acceleration import Anderson, Plain, iterate
        >>> def step(x):  # towards the cosine of x = x; the value is minus a distance
        ...     return x.cos(), -(x - 0.739085).abs().sum(-1)
        >>> starts = torch.tensor([[0.0], [1.2]])
        >>> runs = [iterate(a, starts, step, steps=100, tolerance=1e-5) for a in
        ...         (Plain(), Anderson(depth=1))]
        >>> [bool((run.theta - 0.739085).abs().max() < 1e-4) for run in runs]
        [True, True]
    """
    checked_whole("steps", steps, 1)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InvalidArgument(f"tolerance={tolerance!r} must be a positive number.")
    if theta0.dim() != 2 or not theta0.is_floating_point():
        raise InvalidArgument(
            f"theta0 must have one row of floating point numbers per start, shape (R, P), not "
            f"{tuple(theta0.shape)} of {theta0.dtype}."
        )
    if not theta0.isfinite().all():
        bad = int((~theta0.isfinite()).any(-1).nonzero()[0])
        raise InvalidArgument(f"theta0 is not finite in row {bad}; choose another start.")
    rows = Rows(theta0.detach())
    memory = accelerator.start(rows.theta)
    whole, done, interrupted = rows, 0, False  # as they were after an evaluation
    try:
        for number in range(steps):
            active = rows.active.nonzero()[:, 0] if skip_converged else None
            mapped, value = _evaluate(step, rows, active)
            point = rows.update(mapped, value, tolerance, accelerator.patience)
            whole, done = copy(rows), number + 1
            progress = Progress(number, rows.theta, rows.value, rows.residual, rows.active)
            if (callback is not None and callback(progress)) or not progress.active.any():
                break
            proposal = accelerator.propose(memory, point)
            usable = point.accepted & proposal.isfinite().all(-1)
            fallback = torch.where(point.waiting[:, None], mapped, point.mapped)
            rows.tried = torch.where(usable[:, None], proposal, fallback)
    except KeyboardInterrupt:
        if whole is rows:
            raise
        whole.values, interrupted = whole.values[:done], True
    return whole.trajectory(interrupted=interrupted)


def _evaluate(
    step: Callable[..., tuple[Tensor, Tensor]],
    rows: Rows,
    active: Tensor | None,  # (A,), the rows to evaluate; None for all
) -> tuple[Tensor, Tensor]:  # (R, P), (R,)
    """Map and objective at the points under trial; those of finished rows are what they were."""
    tried = rows.tried if active is None else rows.tried[active]
    mapped, value = step(tried) if active is None else step(tried, active)
    if mapped.shape != tried.shape or value.shape != tried.shape[:1]:
        raise InvalidArgument(
            f"step must return the map, of shape {tuple(tried.shape)}, and the objective, of shape "
            f"{tuple(tried.shape[:1])}, not {tuple(mapped.shape)} and {tuple(value.shape)}."
        )
    mapped, value = mapped.detach(), value.detach()
    if active is None:
        return mapped, value
    return rows.mapped.index_put((active,), mapped), rows.value.index_put((active,), value)
