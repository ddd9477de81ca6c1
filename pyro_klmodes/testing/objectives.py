"""Laws of objectives: pure functions of log-weights that know their own derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives import Objective, Part

__all__ = ["OBJECTIVE_LAWS"]


def _log_weights(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def _particles(objective: Objective) -> int:
    return max(6, objective.min_particles)


def order_of_particles_does_not_matter(
    objective: Objective,
) -> None:
    """Draws are exchangeable: permuting them permutes the credits and leaves the value."""
    log_w = _log_weights(_particles(objective), 3)
    order = torch.randperm(len(log_w), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(objective(log_w[order]), objective(log_w))
    torch.testing.assert_close(objective.credit(log_w[order]), objective.credit(log_w)[order])


def shifts_as_declared(
    objective: Objective,
) -> None:
    """Rescaling the density by a constant moves the value by ``shift`` and no credit."""
    log_w = _log_weights(_particles(objective), 3)
    expected = objective(log_w) + objective.shift * 2.5
    torch.testing.assert_close(objective(log_w + 2.5), expected)
    torch.testing.assert_close(objective.credit(log_w + 2.5), objective.credit(log_w))


def cells_are_independent(
    objective: Objective,
) -> None:
    """Each cell is what it would be alone."""
    log_w = _log_weights(_particles(objective), 2, 3)
    alone = torch.stack([torch.stack([objective(x) for x in r.unbind(1)]) for r in log_w.unbind(1)])
    torch.testing.assert_close(objective(log_w), alone)


def credit_is_the_derivative(
    objective: Objective,
) -> None:
    """``credit`` is what automatic differentiation gives, and carries no graph."""
    log_w = _log_weights(_particles(objective), 3)
    credit = objective.credit(log_w.requires_grad_())
    assert not credit.requires_grad
    (expected,) = torch.autograd.grad(objective(log_w).sum(), log_w)
    torch.testing.assert_close(credit, expected)


def curvature_is_the_second_derivative(
    objective: Objective,
) -> None:
    """``curvature`` is the derivative of each credit by its own log-weight.

    By central differences of the credit, which the wake part holds constant in its value. An
    objective without curvature must refuse; ranks, being piecewise constant, have none to check.
    """
    log_w = _log_weights(_particles(objective), 3)
    try:
        curvature = objective.curvature(log_w)
    except IncompatibleEstimator:
        assert not objective.smooth or objective.part is Part.WAKE or _is_extreme(objective)
        return
    assert not curvature.requires_grad
    step = 1e-5
    for k in range(len(log_w)):
        bump = torch.zeros_like(log_w)
        bump[k] = step
        up, down = objective.credit(log_w + bump)[k], objective.credit(log_w - bump)[k]
        torch.testing.assert_close(curvature[k], (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


def _is_extreme(objective: Objective) -> bool:
    """A power mean of infinite order follows a single particle."""
    return abs(getattr(objective, "alpha", 0.0)) == float("inf")


def gradients_are_finite_where_weights_are_zero(
    objective: Objective,
) -> None:
    """A particle of weight zero, or a cell of nothing else, gives no NaN gradient."""
    log_w = _log_weights(_particles(objective), 3)
    log_w[0, 0] = -float("inf")
    log_w[:, 1] = -float("inf")
    log_w.requires_grad_()
    value = objective(log_w)
    finite = torch.isfinite(value.detach())
    if bool(finite.any()) and value.requires_grad:
        (gradient,) = torch.autograd.grad(value[finite].sum(), log_w)
        assert bool(torch.isfinite(gradient).all()), f"gradient {gradient}"
    assert bool(torch.isfinite(value[2]).all()), f"an ordinary cell has value {value[2]}"


def keeps_the_dtype(
    objective: Objective,
) -> None:
    """Single precision stays single and agrees with double."""
    log_w = _log_weights(_particles(objective), 3)
    single = objective(log_w.float())
    assert single.dtype is torch.float32
    torch.testing.assert_close(single.double(), objective(log_w), rtol=1e-4, atol=1e-5)


OBJECTIVE_LAWS: tuple[Callable[[Objective], None], ...] = (
    order_of_particles_does_not_matter,
    shifts_as_declared,
    cells_are_independent,
    credit_is_the_derivative,
    curvature_is_the_second_derivative,
    gradients_are_finite_where_weights_are_zero,
    keeps_the_dtype,
)
