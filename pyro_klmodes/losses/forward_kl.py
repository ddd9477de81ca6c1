"""ForwardKL: mass-covering, maximum likelihood of the guide on weighted draws."""

from __future__ import annotations

from numbers import Real
from typing import Literal

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, Fixed, auto
from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.objectives.weightings import (
    Weighting,
    pareto_smoothed,
    self_normalised,
    tempered,
)
from pyro_klmodes.tracing.defensive import sample_defensively
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Pair

__all__ = ["ForwardKL"]

_WEIGHTINGS: dict[str, Weighting] = {
    "snis": self_normalised,
    "psis": pareto_smoothed,
    "tempered": tempered,
}


class ForwardKL(DivergenceLoss):
    r"""Forward (inclusive) Kullback-Leibler divergence plus the log-evidence, estimated as

    .. math:: \sum_k \bar w_k \log w_k \approx KL(p \| q) + \log Z,
        \qquad \nabla = -\sum_k \bar w_k \nabla \log q(z_k),

    with self-normalised weights of K draws from the guide, held constant. Mass-covering: q must
    be positive wherever p is. Consistent in K only: with few particles, far from the posterior or
    in high dimension the weights rest on one draw and the gradient becomes mode-seeking; a
    narrow start can stay in its mode. Works for discrete guides and for every guide whose density
    is known at given values. In a local plate the weights are per datum. The model's own parameters
    follow the importance-weighted bound.

    Args:
        num_particles: K, at least 2.
        weights: "snis" (plain), "psis" (Pareto-smoothed tail: less variance) or "tempered" (raised
            to the largest power that keeps half of the particles effective: the target moves from
            q to p as the guide improves, and equals p only once the plain weights are that even).
        defensive: in ``[0, 1)``; the share of particles drawn from the model's prior instead of
            the guide, with weights against the mixture. Lets a narrow start find modes that the
            prior covers; helps in low dimension only.
        num_outer: M, independent estimates that are averaged.
        estimator: ``auto`` and ``fixed`` (wake-phi), ``score`` (with a leave-one-out baseline),
            or ``doubly`` (plain weights only).
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for an unknown ``weights``, a ``defensive`` share out of range, or K < 2.
        NoDensity: at the first step, if the guide has no density at given values.

    Source: Bornschein and Bengio (2015); Le et al. (2020); Vehtari et al. (2024) for the smoothed
    and Prangle and Viscardi (2023) for the tempered weights; Hesterberg (1995) for the defensive
    mixture.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> ForwardKL(num_particles=4).loss(model, model)
        0.0
    """

    def __init__(
        self,
        num_particles: int = 32,
        weights: Literal["snis", "psis", "tempered"] = "snis",
        defensive: float = 0.0,
        num_outer: int = 1,
        *,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if weights not in _WEIGHTINGS:
            raise InvalidArgument(f"weights={weights!r} must be one of {sorted(_WEIGHTINGS)}.")
        if not isinstance(defensive, Real) or not 0.0 <= defensive < 1.0:
            raise InvalidArgument(
                f"defensive={defensive!r} must be a share in [0, 1), for instance 0.1."
            )
        if defensive > 0 and not isinstance(estimator, Auto | Fixed):
            raise InvalidArgument(
                f"defensive={defensive} with {estimator!r}: draws from the prior have neither a "
                "path nor the guide's score. Use estimators.auto or estimators.fixed."
            )
        super().__init__(
            objectives.ForwardKL(_WEIGHTINGS[weights]),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
        self.defensive: float = float(defensive)

    def _draws(self, pair: Pair, layout: Layout, cut: Cut) -> Draws:
        if self.defensive == 0.0:
            return super()._draws(pair, layout, cut)
        return sample_defensively(
            pair, layout, self.num_particles, self.defensive, outer=self.num_outer
        )
