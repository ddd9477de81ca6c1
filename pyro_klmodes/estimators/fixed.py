"""Draws as data: the wake phase."""

from __future__ import annotations

from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.estimators.base import (
    Estimator,
    model_part,
    value_of,
    weighted_sum,
    with_gradient,
)
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Fixed"]


class Fixed(Estimator):
    r"""Maximum likelihood of the guide on weighted draws, :math:`-\sum_k c_k \nabla \log q(z_k)`.

    For forward KL it is the wake-phi phase of reweighted wake-sleep (Bornschein and Bengio, 2015);
    for CUBO, Renyi bounds with alpha in (0, 1) and f-divergences finite at ratio zero the same with
    other weights (``wake_credit``): the gradient of the divergence itself as K grows, instead of
    that of its K-sample estimate. For any guide whose density is known at given values,
    reparameterised or not. The draws may come from any proposal whose density is in the weights.

    Example:
        >>> Fixed()
        fixed
    """

    needs_density = True
    min_particles = 2

    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """Draws are constants."""
        if not objective.has_wake:
            raise IncompatibleEstimator(
                f"{type(objective).__name__} moves the draws; holding them fixed would drive the "
                "guide away from the posterior. Use estimators.auto, or the loss ForwardKL."
            )
        return Cut.DRAWS

    def takes_strata(self, objective: Objective) -> bool:
        """Where the objective does: the shares are in its weights."""
        return objective.takes_strata

    def value(self, objective: Objective, draws: Draws) -> Tensor:
        """The objective; for forward KL the log-ratio to the guide, whatever proposed the draws."""
        return _value(objective, draws, objective.wake_credit(draws.log_w))

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The value with the gradient of the weighted log-density."""
        guide = self.guide_loss(objective, draws)
        return with_gradient(guide, guide + model_part(objective, draws))

    def guide_loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The value with the gradient for the guide alone."""
        # once for both: smoothing or tempering the weights costs more than the rest
        credit = objective.wake_credit(draws.log_w)
        guide = -weighted_sum(credit, draws.log_q) * draws.weight
        return with_gradient(_value(objective, draws, credit), guide)


def _value(
    objective: Objective,
    draws: Draws,
    credit: Tensor,  # (K, *local), the objective's wake credit
) -> Tensor:
    if objective.part is not Part.WAKE:
        return value_of(objective, draws)
    log_ratio = draws.log_p - draws.log_q
    return weighted_sum(credit, log_ratio) * draws.weight + objective.shift * draws.rest
