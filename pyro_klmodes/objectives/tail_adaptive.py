"""Tail-adaptive f-divergence: the path gradient weighted by ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.objectives.base import Objective, Part
from pyro_klmodes.weights import tail_adaptive_weights

__all__ = ["TailAdaptive"]


@dataclass(frozen=True)
class TailAdaptive(Objective):
    r"""Path gradient :math:`-\sum_k \gamma_k P_k` with
    :math:`\gamma_k \propto \hat{\bar F}(w_k)^\beta`,

    where :math:`\hat{\bar F}(w)` is the fraction of weights at least as large as w, so that the
    largest weight counts most and :math:`\gamma_{(r)} = 1 / (r H_K)` at beta = -1 whatever the
    weights. The divergence adapts to their tail: its first two moments always exist. The value
    is :math:`-\sum_k \gamma_k \log w_k`, whose derivative is the credit (ranks are constant
    almost everywhere).

    Attributes:
        beta: exponent in ``[-1, 0)``.

    Source: Wang, Liu and Liu (2018).

    Example:
        >>> -TailAdaptive().credit(torch.tensor([0.0, 5.0]))   # 1/(2 H_2), 1/H_2
        tensor([0.3333, 0.6667])
    """

    beta: float = -1.0

    part = Part.PATH

    @property
    def min_particles(self) -> int:
        """A single particle has no rank."""
        return 2

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """``-sum_k gamma_k log w_k``."""
        return -(tail_adaptive_weights(log_w.detach(), beta=self.beta) * log_w).sum(0)

    def credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``-gamma_k``."""
        return -tail_adaptive_weights(log_w.detach(), beta=self.beta)

    def curvature(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """Zero almost everywhere; the path part does not use it."""
        return torch.zeros_like(log_w, requires_grad=False)
