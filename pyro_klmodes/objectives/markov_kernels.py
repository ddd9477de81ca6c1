"""Markov kernels on a guide's draws: from the log-weights of S particles to the chain's next state.

Particle 0 is where a chain stands, the others are independent draws from the guide q, and
``w = p / q`` are the weights of all of them. Both kernels leave the posterior invariant for any
S >= 2, whatever the guide: a chain that stands at a draw from the posterior goes on standing at
one, which self-normalised weights without a chain do not give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_klmodes.weights import self_normalise

__all__ = ["Kernel", "Transition", "conditional_importance", "independence"]


class Transition(NamedTuple):
    """What a kernel makes of the particles of every cell.

    Attributes:
        weights: ``(S, *local)``, summing to one over particles. For a chain that stands at a draw
            from p, ``E sum_k weights_k f(z_k)`` is the mean of f under p.
        chosen: ``(*local)``, the particle that the chain goes on from.
    """

    weights: Tensor
    chosen: Tensor


Kernel = Callable[[Tensor], Transition]


def conditional_importance(
    log_w: Tensor,  # (S, *local)
    uniform: Tensor | None = None,  # (*local)
) -> Transition:
    r"""Conditional importance sampling: the next state is drawn by the self-normalised weights.

    .. math:: P(k) = \bar w_k = w_k / \sum_j w_j

    The weights of the transition are the same :math:`\bar w`, the mean over the next state
    (Rao-Blackwell). Reversible with respect to the posterior.

    Args:
        log_w: log-weights, particle 0 the chain's state. A cell in which none has weight takes any.
        uniform: a number in ``[0, 1)`` for every cell, which decides; drawn if None.

    Source: Naesseth, Lindsten and Blei (2020), "Markovian score climbing"; Andrieu, Doucet and
    Holenstein (2010).

    Example:
        >>> conditional_importance(torch.tensor([1.0, 3.0]).log(), torch.tensor(0.3))
        Transition(weights=tensor([0.2500, 0.7500]), chosen=tensor(1))
    """
    weights = self_normalise(log_w.detach())
    if uniform is None:
        uniform = torch.rand_like(weights[0])
    cumulated = weights.cumsum(0)
    # Relative to their own sum, so that rounding never picks a particle of weight zero.
    chosen = (cumulated / cumulated[-1] <= uniform).sum(0)
    return Transition(weights, chosen)


def independence(
    log_w: Tensor,  # (S, *local)
    uniform: Tensor | None = None,  # (S - 1, *local)
) -> Transition:
    r"""S - 1 steps of a Metropolis independence sampler, one through each draw of the guide.

    The chain goes on to draw k with probability :math:`\min(1, w_k / w_{now})`. The weight of a
    particle is the share of the S - 1 steps after which the chain stood there; that of particle 0
    is zero once the first draw was accepted.

    Args:
        log_w: log-weights, particle 0 the chain's state. A state of weight zero is always left.
        uniform: a number in ``[0, 1)`` for every step and cell, which decides; drawn if None.

    Source: Ou and Song (2020), "Joint stochastic approximation and its application to learning
    discrete latent variable models".

    Example:
        >>> independence(torch.tensor([4.0, 1.0, 2.0]).log(), torch.tensor([0.5, 0.25]))
        Transition(weights=tensor([0.5000, 0.0000, 0.5000]), chosen=tensor(2))
    """
    log_w = log_w.detach()
    steps = log_w.shape[0] - 1
    if uniform is None:
        uniform = torch.rand_like(log_w[1:])
    now = log_w[0]
    chosen = torch.zeros_like(now, dtype=torch.long)
    visits = torch.zeros_like(log_w)
    for k in range(1, steps + 1):
        accepted = (uniform[k - 1].log() < log_w[k] - now) | (now == -math.inf)
        now = torch.where(accepted, log_w[k], now)
        chosen = chosen.masked_fill(accepted, k)
        visits.scatter_add_(0, chosen.unsqueeze(0), torch.ones_like(now).unsqueeze(0))
    # A draw that is no number would be rejected in silence.
    undefined = log_w.isnan().any(0)
    return Transition((visits / steps).masked_fill(undefined, math.nan), chosen)
