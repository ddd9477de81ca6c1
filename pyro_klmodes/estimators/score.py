"""Score-function gradients with leave-one-out baselines, for any guide and any objective."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.estimators.base import (
    Estimator,
    leave_one_out,
    model_part,
    value_of,
    weighted_sum,
    with_gradient,
)
from pyro_klmodes.objectives import Objective, Part
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = ["Score"]


class Score(Estimator):
    r"""Gradient :math:`\sum_k (s_k - b_k) \nabla \log q(z_k)` at constant draws.

    The coefficient is ``s = L - c`` for a whole gradient, ``L`` for a path part, ``-c`` for a wake
    part; the baseline b_k is the same coefficient with the log-weight of draw k replaced by the
    mean of the others: leave-one-out REINFORCE for reverse KL, VIMCO for IWAE (Mnih and Rezende,
    2016), and the same idea for every other objective. With one particle there is no baseline.

    Example:
        >>> Score()
        score
    """

    needs_density = True

    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """Draws are constants."""
        return Cut.DRAWS

    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """The objective's value with the score-function gradient."""
        guide = _score_surrogate(objective, draws) * draws.weight
        return with_gradient(value_of(objective, draws), guide + model_part(objective, draws))


def _score_surrogate(objective: Objective, draws: Draws) -> Tensor:
    log_w = draws.log_w.detach()
    if objective.part is Part.WAKE:
        baseline = leave_one_out(objective.credit, log_w)
        return -weighted_sum(objective.credit(log_w) - baseline, draws.log_q)
    # A guide without random sites has no score.
    score = torch.zeros_like(draws.log_q) if draws.score is None else draws.score
    value = objective(log_w)
    value = torch.where(value.isfinite(), value, torch.zeros_like(value))
    if objective.part is Part.PATH:
        return (
            (value - leave_one_out(lambda x: objective(x).expand(x.shape), log_w)) * score
        ).sum()
    # The value multiplies the score of the draws as they were made; the credit multiplies log q as
    # it stands in the weights. The two differ where a scale acts on the guide alone.
    baseline = leave_one_out(lambda x: objective(x) - objective.credit(x), log_w)
    from_value = ((value - baseline) * score).sum()
    return from_value - weighted_sum(objective.credit(log_w), draws.log_q)
