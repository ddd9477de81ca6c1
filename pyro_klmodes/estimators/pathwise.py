"""Pathwise gradients: differentiate the objective along reparameterised draws."""

from __future__ import annotations

from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.estimators.base import (
    Estimator,
    follow,
    model_part,
    value_of,
    weighted_sum,
    with_gradient,
)
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Pathwise"]


class Pathwise(Estimator):
    r"""The total derivative :math:`\sum_k c_k (P_k - S_k)` (Kingma and Welling, 2014).

    Needs a guide all of whose sites are reparameterised, and nothing of its density beyond its
    own draws. The model's parameters are differentiated with the objective if that is a bound they
    can raise; otherwise the model is evaluated at cut draws and follows its own objective.

    Example:
        >>> Pathwise()
        pathwise
    """

    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """No cut, or one between guide and model."""
        if objective.part is not Part.WHOLE:
            raise IncompatibleEstimator(
                f"{type(objective).__name__} is not the expectation of a function of the weights: "
                "a pathwise gradient would follow another divergence. Use estimators.auto, "
                "estimators.doubly or estimators.score."
            )
        if layout.unreparameterised:
            raise IncompatibleEstimator(
                f"guide site '{layout.unreparameterised[0]}' is not reparameterised, so a pathwise "
                "gradient would miss it. Use estimators.auto (pathwise where possible, score "
                "elsewhere) or estimators.score."
            )
        return cut_for_model(objective)

    def takes_strata(self, objective: Objective) -> bool:
        """Where the objective is differentiated as a whole, and so are the shares."""
        return objective.takes_strata and cut_for_model(objective) is Cut.NONE

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The objective itself where one gradient serves guide and model."""
        return pathwise_loss(objective, draws)


def cut_for_model(objective: Objective) -> Cut:
    """The model is evaluated apart from the guide only if it minimises something else."""
    return Cut.NONE if objective.for_model() == objective else Cut.MODEL


def pathwise_loss(
    objective: Objective,
    draws: Draws,
) -> Tensor:
    """Scalar with the pathwise gradient in every site that has one."""
    value = value_of(objective, draws)
    if cut_for_model(objective) is Cut.NONE:
        return value
    credit = objective.credit(draws.log_w)
    guide = follow(draws, credit, draws.log_p) - weighted_sum(credit, draws.log_q) * draws.weight
    return with_gradient(value, guide + model_part(objective, draws))
