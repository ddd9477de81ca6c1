"""Reverse (exclusive) Kullback-Leibler divergence: the negated evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.objectives.base import Objective

__all__ = ["ReverseKL"]


@dataclass(frozen=True)
class ReverseKL(Objective):
    r"""Negated ELBO, :math:`-\frac1K \sum_k \log w_k = KL(q \| p) - \log Z` in expectation.

    Source: Jordan, Ghahramani, Jaakkola and Saul (1999).

    Example:
        >>> ReverseKL()(torch.tensor([1.0, 3.0]))
        tensor(-2.)
    """

    @property
    def linear(self) -> bool:
        """The value is a mean of log-weights."""
        return True

    @property
    def lower_bound(self) -> bool:
        """The ELBO is one."""
        return True

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """The mean of ``-log w``."""
        return -log_w.mean(0)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``-1/K``."""
        return torch.full_like(log_w, -1.0 / log_w.shape[0], requires_grad=False)

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """Zero: the value is linear."""
        return torch.zeros_like(log_w, requires_grad=False)

    def for_model(self) -> Objective:
        """The ELBO is a bound: the model's parameters follow it too."""
        return self
