"""Weights that depend on the order of the importance weights alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights.logspace import self_normalise

__all__ = ["descending_ranks", "tail_adaptive_weights"]


def descending_ranks(
    log_w: Tensor,  # (K, *local)
) -> Tensor:  # (K, *local)
    """Rank of every particle in its cell: 1 for the largest weight, K for the smallest.

    Args:
        log_w: Log-weights, `(K, *local)`.

    Returns:
        The ranks, `(K, *local)`, as integers. Every cell holds each of 1 to K once: ties are ranked
        in the order of the particles. NaN ranks before all numbers, as integers cannot be NaN.

    Example:
        >>> descending_ranks(torch.tensor([0.0, 5.0, 0.0, 7.0]))
        tensor([3, 2, 4, 1])
    """
    order = log_w.detach().argsort(dim=0, descending=True, stable=True)
    # `order` lists the particles by rank; the rank of a particle is its place in that list.
    return order.argsort(dim=0) + 1


def tail_adaptive_weights(
    log_w: Tensor,  # (K, *local)
    beta: float = -1.0,
) -> Tensor:  # (K, *local)
    """Weights of the tail-adaptive f-divergence, `gamma_k ∝ Fbar(w_k)^beta`.

    `Fbar(w_k)` is the fraction of the cell's particles with a weight of at least `w_k`, that is
    `rank_k / K` if the weights differ. With `beta = -1` the weights in descending order are then
    exactly `1 / (rank H_K)`, H_K the K-th harmonic number, whatever the size of the weights, so no
    moment of them need exist.

    Ties get equal weights, as in the definition: the whole group has the rank of its last member. A
    particle of weight zero still has a positive gamma, because only the order counts.

    Args:
        log_w: Log-weights, `(K, *local)`; -inf is a weight of zero.
        beta: Any finite exponent; the more negative, the more the largest weights count. 0 is
            uniform.

    Returns:
        Weights that sum to one over the particles, `(K, *local)`, detached. A cell with NaN is NaN.

    Raises:
        InvalidArgument: `beta` is not finite.

    References:
        Wang, Liu and Liu (2018), Variational inference with tail-adaptive f-divergence, NeurIPS.

    Example:
        >>> tail_adaptive_weights(torch.tensor([-3.0, 9.0]))
        tensor([0.3333, 0.6667])
    """
    if not math.isfinite(beta):
        raise InvalidArgument(f"tail_adaptive_weights: beta is {beta}; pass a finite exponent.")

    num_draws = log_w.shape[0]
    rows = log_w.detach().movedim(0, -1).contiguous()
    num_smaller = torch.searchsorted(rows.sort(dim=-1).values, rows)
    fraction = (num_draws - num_smaller).movedim(-1, 0).to(log_w.dtype) / num_draws
    gamma = self_normalise(beta * fraction.log())
    return gamma.masked_fill(log_w.detach().isnan().any(0), math.nan)
