"""Pathwise where a site is reparameterised, score function where it is not."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.estimators.base import Estimator, leave_one_out
from pyro_klmodes.estimators.pathwise import cut_for_model, pathwise_loss
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Mixed"]


class Mixed(Estimator):
    r"""Pathwise gradient plus :math:`\sum_k (L - b_k) \nabla \log q_N(z_k)`,

    where :math:`q_N` is the density of the draws that carry no path (discrete sites, the accepted
    part of a rejection sampler) and b_k a leave-one-out baseline (Schulman et al., 2015; Mnih and
    Rezende, 2016). For a fully reparameterised guide it is the pathwise gradient.

    Example:
        >>> Mixed()
        mixed
    """

    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """As for pathwise gradients."""
        if objective.part is not Part.WHOLE:
            raise IncompatibleEstimator(
                f"{type(objective).__name__} has no gradient that mixes paths and scores. Use "
                "estimators.auto, estimators.doubly or estimators.score."
            )
        return cut_for_model(objective)

    def takes_strata(self, objective: Objective) -> bool:
        """Where the objective is differentiated as a whole, and so are the shares."""
        return objective.takes_strata and cut_for_model(objective) is Cut.NONE

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """Pathwise loss with the score term added."""
        loss = pathwise_loss(objective, draws)
        if draws.score is None:
            return loss
        log_w = draws.log_w.detach()
        value = objective(log_w)
        value = torch.where(value.isfinite(), value, torch.zeros_like(value))
        # The credit part of the score's coefficient is in the pathwise loss (through log q).
        baseline = leave_one_out(lambda x: objective(x) - objective.credit(x), log_w)
        score = ((value - baseline) * draws.score).sum() * draws.weight
        return loss + (score - score.detach())
