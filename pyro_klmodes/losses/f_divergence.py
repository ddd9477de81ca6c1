"""FDivergence: any convex function of the density ratio."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_klmodes import objectives
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["FDivergence"]


class FDivergence(DivergenceLoss):
    r"""f-divergence of the posterior from the guide, :math:`E_q f(p(z \mid x)/q(z))`,

    estimated from K weights normalised by their own mean:
    :math:`\frac1K \sum_k f(w_k / \bar w)`. ``f`` works in log space, ``f(t)`` for the log-ratio t;
    the named functions are in ``pyro_klmodes.objectives.f_functions`` (forward and reverse KL,
    chi-square, Hellinger, Jensen-Shannon, alpha, total variation). Where the weights collapse onto
    one draw the normalised estimate saturates and its gradient vanishes: start from a wide guide.
    With ``log_evidence`` the ratios are exact and nothing saturates. ``estimators.fixed`` follows
    the divergence itself instead of the estimate, by weighted likelihood with weights
    ``r f'(r) - f(r) + f(0)``, where f is finite at ratio 0; it does not saturate either. The
    model's own parameters follow the importance-weighted bound.

    Args:
        f: elementwise function of the log-ratio.
        num_particles: K, at least 2 unless ``log_evidence`` is given.
        num_outer: M, independent estimates that are averaged.
        log_evidence: the exact log-evidence if known (of each cell, with local plates).
        estimator: one of ``pyro_klmodes.estimators``.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if ``f`` is not an elementwise function, finite at log-ratio 0.

    Source: Wan, Li and Hayashi (2020).

    Example:
        >>> from pyro_klmodes.objectives.f_functions import jensen_shannon
        >>> FDivergence(jensen_shannon, num_particles=8).num_particles
        8
    """

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        log_evidence: float | None = None,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(
            objectives.FDivergence(f, log_evidence),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
