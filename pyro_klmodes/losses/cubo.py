"""CUBO: the chi upper bound."""

from __future__ import annotations

from numbers import Real

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["CUBO"]


class CUBO(DivergenceLoss):
    r"""Chi upper bound of order n, lowered,

    .. math:: CUBO_n = \frac1n \log \frac1K \sum_k w_k^n,
        \qquad \frac1n \log E_q w^n = \log Z + \frac{n-1}{n} D_n(p \| q) .

    The strongest mass-covering objective: q must be wide wherever p is. In Li and Turner's
    convention alpha = 1 - n. **A finite-K value is not a bound**: the logarithm biases it down,
    the more the heavier the weights, and its own minimum is a guide that has collapsed onto a
    point. The default estimator therefore holds the draws fixed and follows the exact bound,
    :math:`-\frac{n-1}{n} \sum_k \bar w_k^{(n)} \nabla \log q(z_k)` with normalised powers of the
    weights; ``pathwise``, ``doubly`` and ``score`` follow the estimate and want many particles and
    a wide start. Read k-hat: the draws of a guide that misses a mode do not show it. The model's
    own parameters follow the importance-weighted bound.

    Args:
        order: n > 1; 2 is the chi-square divergence.
        num_particles: K, at least 2.
        num_outer: M, independent estimates that are averaged.
        estimator: one of ``pyro_klmodes.estimators``; ``auto`` is ``fixed``.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if ``order`` is not a number above 1, or K below 2.

    Source: Dieng, Tran, Ranganath, Paisley and Blei (2017); Midgley et al. (2023) for the weighted
    likelihood.

    Example:
        >>> CUBO(order=2).objective
        PowerMean(alpha=-1.0, sign=1)
    """

    def __init__(
        self,
        order: float = 2,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if isinstance(order, bool) or not isinstance(order, Real) or not 1 < order < float("inf"):
            raise InvalidArgument(
                f"order={order!r} must be a number above 1, for instance 2. Orders in (0, 1] bound "
                "the evidence from below: Renyi(alpha=1 - order)."
            )
        super().__init__(
            objectives.PowerMean(1.0 - float(order), sign=1),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
