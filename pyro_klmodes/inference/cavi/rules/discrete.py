"""Discrete sites: all states with their probabilities, or the mean of what enters as a number."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import Bernoulli, Categorical
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params, Rule, blended

__all__ = ["NumbersRule", "StatesRule"]


class StatesRule(Rule):
    """All states of a Categorical or Bernoulli; points are their probabilities.

    The mean of any function is linear in the probabilities, its gradient is the log-potential of
    every state.
    """

    def __init__(self, family: Categorical | Bernoulli) -> None:
        self.family = family
        self.binary = isinstance(family, Bernoulli)

    def points(self, params: Params) -> Tensor:  # (n, *batch)
        """The probabilities of the states."""
        logits = params["logits"]
        if self.binary:
            return torch.stack([(-logits).sigmoid(), logits.sigmoid()])
        return logits.softmax(-1).movedim(-1, 0)

    def nodes(self, points: Tensor) -> Nodes:
        """All states, weighed by their probabilities."""
        dtype = points.dtype if self.binary else torch.int64
        states = torch.arange(len(points), dtype=dtype, device=points.device)
        column = states.reshape(-1, *([1] * (points.dim() - 1)))
        return Nodes(column.expand(points.shape), points)

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """The log-potentials, as logits."""
        new = gradient[1] - gradient[0] if self.binary else gradient.log_softmax(0).movedim(0, -1)
        (logits,) = blended(self.family.natural(params), (new,), rho)
        return {"logits": logits}

    def entropy(self, params: Params) -> Tensor:
        """``-sum p log p``."""
        if self.binary:
            return super().entropy(params)
        log_p = params["logits"].log_softmax(-1)
        # a state of probability zero has a log-probability that may be very large
        return -torch.special.xlogy(p := log_p.exp(), p.clamp(min=1e-300)).sum(-1)


class NumbersRule(StatesRule):
    """Both states of a Bernoulli, and the probability of one as a third value.

    Terms of single elements see the states. Terms in which elements meet, affine in each of them
    by itself, see the third value: elements are independent under ``q``, so that the mean of a
    product is the product of the means. All gradients together are the mean log-odds of each
    element given the others. Elements that meet are updated at once, which may overshoot.
    """

    ascends = False

    def __init__(self, family: Bernoulli) -> None:
        super().__init__(family)

    def nodes(self, points: Tensor) -> Nodes:
        """Zero and one with their probabilities, and the mean."""
        values = torch.stack([torch.zeros_like(points[0]), torch.ones_like(points[1]), points[1]])
        return Nodes(values, points, number=True)
