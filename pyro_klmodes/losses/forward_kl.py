"""ForwardKL: mass-covering, maximum likelihood of the guide on weighted draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.estimators import Auto, Estimator, Fixed, auto
from pyro_klmodes.estimators.base import model_part, with_gradient
from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.losses.checks import checked_broad, checked_share
from pyro_klmodes.losses.distilled import Distilled, towards_posterior
from pyro_klmodes.objectives.weightings import (
    Truncated,
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
            q to p as the guide improves, and equals p only once the plain weights are that even);
            or ``Distilled(...)``: the target moves from the prior to p, never back, as fast as the
            guide can follow; its exponent is ``epsilon``, one for all data. It pays where few
            particles meet a likelihood far narrower than the prior and a posterior that is not
            simple; plain weights reach a normal posterior as well, and sooner.
        defensive: in ``[0, 1)``; the share of particles drawn from a broad distribution instead
            of the guide, with weights against the mixture. Lets a narrow start find modes that are
            covered by it; helps in low dimension only.
        broad: a second guide that draws these particles and is not trained; None for the model's
            prior.
        num_outer: M, independent estimates that are averaged.
        estimator: ``auto`` and ``fixed`` (wake-phi), ``score`` (with a leave-one-out baseline),
            or ``doubly`` (plain weights only).
        max_plate_nesting: depth of the deepest plate, found by itself if None.
        vectorize_particles: whether particles share one run.

    Raises:
        InvalidArgument: for an unknown ``weights``, a ``defensive`` share out of range, K < 2, or
            distilled weights with another estimator or a limit that cuts equal weights.
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
        weights: Literal["snis", "psis", "tempered"] | Distilled = "snis",
        defensive: float = 0.0,
        num_outer: int = 1,
        *,
        broad: Callable[..., Any] | None = None,
        estimator: Estimator | Auto = auto,
        max_plate_nesting: int | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        defensive = checked_share("defensive", defensive)
        if defensive > 0 and not isinstance(estimator, Auto | Fixed):
            raise InvalidArgument(
                f"defensive={defensive} with {estimator!r}: draws from the prior have neither a "
                "path nor the guide's score. Use estimators.auto or estimators.fixed."
            )
        weighting = _weighting(weights, num_particles, estimator)
        super().__init__(
            objectives.ForwardKL(weighting),
            num_particles=num_particles,
            num_outer=num_outer,
            estimator=estimator,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )
        self.defensive = defensive
        self.broad = checked_broad(broad, defensive)
        self.distilled = weights if isinstance(weights, Distilled) else None
        self.epsilon = 0.0 if self.distilled else 1.0

    def reset(self) -> None:
        """Begin anew, with the prior as the target if the weights are distilled."""
        super().reset()
        self.epsilon = 0.0 if self.distilled else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The step, and how far the likelihood has been let in."""
        return {**super().state_dict(), "epsilon": self.epsilon}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.epsilon = float(state["epsilon"])

    def why_not_static(self) -> str | None:
        """Distilled weights go on from where the last step has left them."""
        if self.distilled is not None:
            return "distilled weights depend on all steps before"
        return super().why_not_static()

    def _draws(self, pair: Pair, layout: Layout, cut: Cut) -> Draws:
        if self.defensive == 0.0:
            return super()._draws(pair, layout, cut)
        return sample_defensively(
            pair,
            layout,
            self.num_particles,
            self.defensive,
            self.num_outer,
            self.broad,
            by_site=self._needs_sites(layout),
        )

    def _needs_sites(self, layout: Layout) -> bool:
        return self.distilled is not None or super()._needs_sites(layout)

    def _differentiable(self, pair: Pair) -> Tensor:
        before = self.epsilon
        finite = False
        try:
            loss = super()._differentiable(pair)
            finite = math.isfinite(float(loss.detach()))
        finally:
            if not finite:  # draws that give no step do not let the likelihood in either
                self.epsilon = before
        return loss

    def _value(self, draws: Draws, layout: Layout) -> Tensor:
        if self.distilled is None:
            return super()._value(draws, layout)
        target = towards_posterior(draws, self.epsilon)
        return self._estimator(layout).value(self._objective(target), target)

    def _surrogate(self, draws: Draws, layout: Layout) -> Tensor:
        if self.distilled is None:
            return super()._surrogate(draws, layout)
        self.epsilon = self.distilled.next_epsilon(draws, self.epsilon)
        target = towards_posterior(draws, self.epsilon)
        guide = self._estimator(layout).loss(self._objective(target), target)
        return with_gradient(guide, guide + model_part(self._objective(draws), draws))


def _weighting(weights: Any, num_particles: int, estimator: Estimator | Auto) -> Weighting:
    if not isinstance(weights, Distilled):
        if weights not in _WEIGHTINGS:
            raise InvalidArgument(
                f"weights={weights!r} must be one of {sorted(_WEIGHTINGS)}, or Distilled(...)."
            )
        return _WEIGHTINGS[weights]
    if not isinstance(estimator, Auto | Fixed):
        raise InvalidArgument(
            f"weights={weights!r} with {estimator!r}: the weights depend on all draws together, "
            "which leaves no gradient but that at constant draws. Use estimators.auto."
        )
    if isinstance(num_particles, int) and weights.truncate * num_particles <= 1:
        raise InvalidArgument(
            f"truncate={weights.truncate} with num_particles={num_particles}: weights that are all "
            f"equal are as large. Make it more than 1/{num_particles}, or take more particles."
        )
    return Truncated(float(weights.truncate))
