"""How forward KL turns log-weights into the weights it trusts: plain, Pareto-smoothed, tempered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.weights import pareto_smooth, self_normalise, tempering_exponent

__all__ = ["Truncated", "Weighting", "pareto_smoothed", "self_normalised", "tempered"]

Weighting = Callable[[Tensor], Tensor]  # (K, *local) log-weights -> (K, *local), summing to one


def self_normalised(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Self-normalised importance weights: consistent in K, biased towards q at small K."""
    return self_normalise(log_w.detach())


def pareto_smoothed(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Weights whose tail is replaced by a fitted Pareto (Vehtari et al., 2024): less variance."""
    return self_normalise(pareto_smooth(log_w.detach())[0])


def tempered(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Weights raised to the largest power that keeps half the particles effective.

    The target is then between q and p and moves to p as the guide improves (Prangle and Viscardi,
    2023).
    """
    log_w = log_w.detach()
    return self_normalise(tempering_exponent(log_w, ess_fraction=0.5) * log_w)


@dataclass(frozen=True)
class Truncated:
    r"""Self-normalised weights none of which is above a limit.

    Weights are cut at the level t at which the largest is :math:`\omega` after normalisation,
    :math:`\min(w_k, t) / \sum_j \min(w_j, t)`. With fewer than :math:`1 / \omega` draws of positive
    weight these become equal.

    Attributes:
        limit: :math:`\omega`, in (0, 1].

    Source: Ionides (2008); Prangle and Viscardi (2023).

    Example:
        >>> Truncated(0.4)(torch.tensor([1.0, 1.0, 1.0, 7.0]).log())
        tensor([0.2000, 0.2000, 0.2000, 0.4000])
    """

    limit: float

    def __call__(
        self,
        log_w: Tensor,  # (K, *local)
    ) -> Tensor:  # (K, *local)
        """The truncated weights; they sum to one."""
        w = self_normalise(log_w.detach())
        largest_first = w.sort(0, descending=True).values
        K = len(w)
        # With the n largest cut, t = limit * (sum of the others + n t). The right n is the first
        # for which no other weight is above t.
        n = torch.arange(1, K + 1, dtype=w.dtype).reshape(-1, *[1] * (w.dim() - 1))
        from_here = largest_first.flip(0).cumsum(0).flip(0)  # small ones first, for precision
        others = torch.cat([from_here[1:], torch.zeros_like(w[:1])])
        room = 1 - self.limit * n
        level = torch.where(room > 0, self.limit * others / room, math.inf)
        next_largest = torch.cat([largest_first[1:], torch.zeros_like(w[:1])])
        fits = (level >= next_largest) & (level < math.inf)
        first = fits.to(torch.uint8).argmax(0, keepdim=True)
        smallest_positive = torch.where(w > 0, w, math.inf).amin(0, keepdim=True)
        cut = torch.where(fits.any(0, keepdim=True), level.gather(0, first), smallest_positive)
        # zero where all the weight is on draws that are cut: then they are equal
        cut = torch.maximum(cut, smallest_positive)
        cut = torch.where(w.amax(0, keepdim=True) > self.limit, cut, math.inf)
        clipped = torch.minimum(w, cut)
        return clipped / clipped.sum(0)
