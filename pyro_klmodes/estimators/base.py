"""What an estimator is: a choice of gradient paths, and the coefficients it puts on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.estimators.reach import reaches_beyond
from pyro_klmodes.objectives import Objective
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout

__all__ = [
    "Estimator",
    "follow",
    "leave_one_out",
    "model_part",
    "value_of",
    "weighted_sum",
    "with_gradient",
]


class Estimator(ABC):
    """How the gradient of an objective is estimated from draws of the guide.

    Implementing one: say where the graph is cut, refuse the pairs that have no correct gradient,
    and return a scalar whose value is the loss and whose gradient is the estimate.
    """

    #: whether the guide's density must be known at given values, and not only at its own draws
    needs_density: bool = False
    #: whether the densities of every latent site must be known, and not only their sum
    needs_sites: bool = False
    #: whether the model's own sites must be known, with their distributions, and not only densities
    needs_model_sites: bool = False
    #: with fewer the expectation of the gradient is zero
    min_particles: int = 1

    @abstractmethod
    def cut(self, objective: Objective, layout: Layout) -> Cut:
        """Where the draws are cut.

        Raises:
            IncompatibleEstimator: if the estimator has no correct gradient for this objective or
                for the guide's sites.
        """

    def takes_strata(self, objective: Objective) -> bool:
        """Whether draws may be spread over the components of a mixture, with a share each."""
        return False

    def value(self, objective: Objective, draws: Draws) -> Tensor:
        """Scalar: the loss alone."""
        return value_of(objective, draws)

    @abstractmethod
    def loss(self, objective: Objective, draws: Draws) -> Tensor:
        """Scalar: its value is the loss, its gradient the estimate."""

    def __repr__(self) -> str:
        return type(self).__name__.lower()


def value_of(
    objective: Objective,
    draws: Draws,
) -> Tensor:
    """The loss: the objective over all cells and outer particles, scaled; plus constant sites."""
    return objective(draws.log_w).sum() * draws.weight + objective.shift * draws.rest


def with_gradient(
    value: Tensor,  # scalar
    surrogate: Tensor,  # scalar
) -> Tensor:
    """A scalar with the value of one tensor and the gradient of another."""
    return value.detach() + _GradientOnly.apply(surrogate)


class _GradientOnly(torch.autograd.Function):
    """Zero with the gradient of its argument; an infinite one less itself would not be zero."""

    @staticmethod
    def forward(
        ctx: Any,
        surrogate: Tensor,
    ) -> Tensor:
        return torch.zeros_like(surrogate)

    @staticmethod
    def backward(
        ctx: Any,
        *grad_outputs: Tensor,
    ) -> Tensor:
        return grad_outputs[0]


def model_part(
    objective: Objective,
    draws: Draws,
) -> Tensor:
    """Surrogate for the model's own parameters: the credits of the bound that they raise."""
    # A model without any has been differentiated for the paths; once is enough.
    if not reaches_beyond((draws.log_p, draws.rest), [leaf for _, leaf in draws.leaves]):
        return draws.log_p.new_zeros(())
    credit = objective.for_model().credit(draws.log_w)
    return weighted_sum(credit, draws.log_p) * draws.weight - draws.rest


def follow(
    draws: Draws,
    credit: Tensor,  # (K, *local), constant
    log_density: Tensor,  # (K, *local), evaluated at the leaves
) -> Tensor:
    """Surrogate whose gradient is that of ``sum credit * log_density`` along the draws' paths."""
    if not draws.leaves:
        return draws.log_p.new_zeros(())
    target = weighted_sum(credit, log_density) * draws.weight
    leaves = [leaf for _, leaf in draws.leaves]
    gradients = torch.autograd.grad(target, leaves, retain_graph=True, allow_unused=True)
    parts = [
        (drawn * g).sum()
        for (drawn, _), g in zip(draws.leaves, gradients, strict=True)
        if g is not None
    ]
    return sum(parts, start=draws.log_p.new_zeros(()))


def weighted_sum(credit: Tensor, log_density: Tensor) -> Tensor:
    """Sum of products in which a zero credit beats an infinite log-density."""
    return (credit * torch.where(credit == 0, torch.zeros_like(log_density), log_density)).sum()


def leave_one_out(
    coefficient: Callable[[Tensor], Tensor],  # (K, J, *local) -> (K, J, *local)
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Baselines: the coefficient of particle k with its log-weight replaced by the others' mean.

    They are independent of draw k given the others, so they leave the mean of a score-function
    gradient as it is (Mnih and Rezende, 2016). With one particle there are no others: zero.
    """
    K = log_w.shape[0]
    if K == 1:
        return torch.zeros_like(log_w, requires_grad=False)
    x = log_w.detach()
    imputed = x.unsqueeze(1).repeat(1, K, *[1] * (x.dim() - 1))  # (particle, left out, *local)
    index = torch.arange(K)
    # Summed without particle k, not subtracted: the baseline must not depend on it by rounding.
    imputed[index, index] = 0.0
    imputed[index, index] = imputed.sum(0) / (K - 1)
    baseline = coefficient(imputed)[index, index]
    return torch.where(baseline.isfinite(), baseline, torch.zeros_like(baseline))
