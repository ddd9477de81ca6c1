"""Renyi: the dial between the importance-weighted bound and beyond the ELBO."""

from __future__ import annotations

import math
import warnings
from numbers import Real

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.estimators import Auto, Estimator, auto
from pyro_klmodes.losses.base import DivergenceLoss

__all__ = ["Renyi"]


class Renyi(DivergenceLoss):
    r"""Negated variational Renyi bound of order alpha,

    .. math:: -L_\alpha = -\frac{1}{1-\alpha} \log \frac1K \sum_k w_k^{1-\alpha} .

    The convention is Li and Turner's and that of Pyro's ``RenyiELBO``:

    ========================  =================================================
    alpha                     what it is
    ========================  =================================================
    1                         the ELBO (the limit; any K)
    0                         the importance-weighted bound
    between                   from mode-seeking to mass-covering
    above 1                   more mode-seeking than the ELBO
    minus infinity            the largest weight alone ("VR-max")
    plus infinity             the smallest weight alone
    ========================  =================================================

    Other conventions: ``CUBO(order=n)`` has alpha = 1 - n; the Renyi divergence
    :math:`D_a(p \| q)` has alpha = 1 - a; Amari's alpha is ``2 alpha - 1``, Minka's ``1 - alpha``.
    For alpha < 0 the exact :math:`L_\alpha` is an *upper* bound on the evidence. This loss raises
    its K-sample estimate, as Li and Turner (2016) do, which only at small K resembles a lower
    bound; to approach the posterior from that side, lower it: ``CUBO(order=1 - alpha)``.

    Args:
        alpha: any real number or an infinity.
        num_particles: K.
        num_outer: M, independent estimates that are averaged.
        estimator: one of ``pyro_klmodes.estimators``.
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: if ``alpha`` is not a number.

    Warns:
        KLModesWarning: for a negative ``alpha``.

    Source: Li and Turner (2016); Daudel, Benton, Shi and Doucet (2023).

    Example:
        >>> Renyi(0.5).objective
        PowerMean(alpha=0.5, sign=-1)
    """

    def __init__(
        self,
        alpha: float,
        num_particles: int = 16,
        num_outer: int = 1,
        *,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, Real) or math.isnan(alpha):
            raise InvalidArgument(f"alpha={alpha!r} must be a number, for instance 0.5.")
        if alpha < 0:
            warnings.warn(
                f"Renyi(alpha={alpha:g}) raises an estimate of an upper bound on the evidence, "
                f"which does not lead to the posterior. CUBO(order={1 - alpha:g}) lowers it.",
                KLModesWarning,
                stacklevel=2,
            )
        super().__init__(
            objectives.PowerMean(float(alpha)),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
