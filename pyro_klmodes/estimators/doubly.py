"""Doubly reparameterised gradients: every score is turned into a path."""

from __future__ import annotations

from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.estimators.base import Estimator, follow, model_part, value_of, with_gradient
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Doubly"]


class Doubly(Estimator):
    r"""Gradient along the paths only, :math:`\sum_k a_k P_k`.

    With the credit c and curvature h of the objective, ``a = c - h`` for a whole gradient,
    ``c`` for a path part, ``-h`` for a wake part. That is sticking the landing for reverse KL
    (Roeder, Wu and Duvenaud, 2017), DReG for IWAE and wake-phi (Tucker et al., 2019), its
    generalisation for Renyi bounds (Daudel et al., 2023), and ``-f''(r) r^2`` for an
    f-divergence. It vanishes identically where the guide is the posterior. Often, not always,
    of less variance; costs a second evaluation of the guide, at its own draws.

    Example:
        >>> Doubly()
        doubly
    """

    needs_density = True

    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """Leaves at every draw."""
        if layout.unreparameterised:
            raise IncompatibleEstimator(
                f"guide site '{layout.unreparameterised[0]}' is not reparameterised: it has no "
                "path to follow. Use estimators.auto or estimators.score."
            )
        return Cut.LEAVES

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The objective's value with the path-only gradient."""
        if draws.tempered and objective.part is not Part.PATH and not objective.linear:
            raise IncompatibleEstimator(
                f"guide site '{draws.tempered}' has a poutine.scale inside of the weights, so its "
                "score does not turn into a path. Use estimators.pathwise or estimators.score."
            )
        log_w = draws.log_w
        guide = follow(draws, path_credit(objective, log_w), log_w)
        return with_gradient(value_of(objective, draws), guide + model_part(objective, draws))


def path_credit(
    objective: Objective,
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """The coefficient of each path, see ``objectives.base``."""
    if objective.part is Part.PATH:
        return objective.credit(log_w)
    if objective.part is Part.WAKE:
        return -objective.curvature(log_w)
    return objective.credit(log_w) - objective.curvature(log_w)
