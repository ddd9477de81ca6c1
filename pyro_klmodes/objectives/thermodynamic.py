"""The thermodynamic variational objective: Riemann sums along the geometric path from q to p."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.objectives.base import Objective
from pyro_klmodes.weights import self_normalise

__all__ = ["Thermodynamic"]


@dataclass(frozen=True)
class Thermodynamic(Objective):
    r"""Riemann sum of :math:`\log Z = \int_0^1 E_{\pi_\beta} \log w \, d\beta` over a partition,

    with :math:`\pi_\beta \propto q^{1-\beta} p^\beta` and its expectations self-normalised,
    :math:`E_{\pi_\beta} \log w \approx \sum_k \text{softmax}(\beta \log w)_k \log w_k`.
    The integrand grows with beta: the left sum is a lower bound (one interval: the ELBO), which
    is raised; the right sum an upper bound (one interval: ``log Z + KL(p || q)``), which is
    lowered. Both are bounds for exact expectations only.

    Attributes:
        partition: increasing ``0 = b_0 < b_1 < ... < b_J = 1``.
        bound: "left" or "right".

    Raises:
        InvalidArgument: for anything that is not such a partition, or another bound.

    Source: Masrani, Le and Wood (2019).

    Example:
        >>> Thermodynamic((0.0, 1.0))(torch.tensor([1.0, 3.0]))    # one interval: the ELBO
        tensor(-2.)
    """

    partition: tuple[float, ...]
    bound: Literal["left", "right"] = "left"

    def __post_init__(self) -> None:
        b = self.partition
        increasing = all(x < y for x, y in pairwise(b))
        if not (len(b) >= 2 and b[0] == 0.0 and b[-1] == 1.0 and increasing):
            raise InvalidArgument(
                f"partition={b} must increase strictly from 0.0 to 1.0, for instance (0.0, 1.0)."
            )
        if self.bound not in ("left", "right"):
            raise InvalidArgument(f"bound={self.bound!r} must be 'left' or 'right'.")

    @property
    def shift(self) -> int:
        """The left sum is negated."""
        return -1 if self.bound == "left" else 1

    @property
    def lower_bound(self) -> bool:
        """Only one interval is for any K; more are for exact expectations."""
        return len(self.partition) == 2 and self.bound == "left"

    @property
    def min_particles(self) -> int:
        """One particle is the ELBO, which must not be lowered."""
        return 1 if self.bound == "left" else 2

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (*local)
        """The weighted sum over the partition's nodes."""
        nodes = self.partition[:-1] if self.bound == "left" else self.partition[1:]
        total = torch.zeros_like(log_w[0])
        for beta, (low, high) in zip(nodes, pairwise(self.partition), strict=True):
            if beta == 0.0:
                expectation = log_w.mean(0)
            else:
                w = self_normalise(beta * log_w)
                expectation = (w * torch.where(w > 0, log_w, torch.zeros_like(log_w))).sum(0)
            total = total + (high - low) * expectation
        return self.shift * total

    @property
    def has_wake(self) -> bool:
        """The right sum's: a mixture of weighted likelihoods."""
        return self.bound == "right"

    def wake_credit(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """``sum_j (b_j - b_{j-1}) v_j (1 - (1 - b_j)(log w - E_j log w))``, weights v_j at b_j."""
        if not self.has_wake:
            return super().wake_credit(log_w)
        log_w = log_w.detach()
        total = torch.zeros_like(log_w)
        for low, high in pairwise(self.partition):
            v = self_normalise(high * log_w)
            # a cell without any weight has uniform v, and no direction
            known = (v > 0) & (log_w > -math.inf)
            seen = torch.where(known, log_w, torch.zeros_like(log_w))
            deviation = seen - (v * seen).sum(0)
            total = total + (high - low) * v * (1.0 - (1.0 - high) * deviation)
        return total

    def for_model(self) -> Objective:
        """The left sum is a bound that the model can raise."""
        return self if self.bound == "left" else super().for_model()
