"""How forward KL turns log-weights into the weights it trusts: plain, Pareto-smoothed, tempered."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_klmodes.weights import pareto_smooth, self_normalise, tempering_exponent

__all__ = ["Weighting", "pareto_smoothed", "self_normalised", "tempered"]

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
