"""TailAdaptive: path gradients weighted by the ranks of the importance weights."""

from __future__ import annotations

from numbers import Real

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["TailAdaptive"]


class TailAdaptive(DivergenceLoss):
    r"""Tail-adaptive f-divergence, by its gradient :math:`-\sum_k \gamma_k P_k`,

    where P_k is the gradient along the path of draw k and
    :math:`\gamma_k \propto \hat{\bar F}(w_k)^\beta` with the fraction of weights at least as large;
    at beta = -1 the r-th largest weight gets :math:`1/(r H_K)`. More mass-covering than reverse KL,
    with finite variance whatever the tail of the weights. The model's own parameters follow
    the importance-weighted bound.

    Args:
        num_particles: K, at least 2.
        num_outer: M, independent estimates that are averaged.
        beta: exponent in ``[-1, 0)``.
        estimator: ``auto``, ``doubly`` or ``score``; there is no pathwise form.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if ``beta`` is out of range or K below 2.

    Source: Wang, Liu and Liu (2018).

    Example:
        >>> TailAdaptive(num_particles=8).objective
        TailAdaptive(beta=-1.0)
    """

    def __init__(
        self,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        beta: float = -1.0,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if not isinstance(beta, Real) or not -1.0 <= beta < 0.0:
            raise InvalidArgument(f"beta={beta!r} must be a number in [-1, 0), for instance -1.0.")
        super().__init__(
            objectives.TailAdaptive(float(beta)),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
