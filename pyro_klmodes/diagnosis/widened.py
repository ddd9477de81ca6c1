"""What is around the guide: the evidence from where its draws, moved outwards, lead."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.population import (
    MOST_COORDINATES,
    Population,
    StudentMixture,
    adapt,
)
from pyro_klmodes.inference.target import Target

__all__ = ["around_guide"]

# A perfect normal guide keeps this share of its effective draws.
KEPT = 0.2
MOST_WIDE = 2.0


@torch.no_grad()
def around_guide(
    target: Target,
    u: Tensor,  # (S, D), draws of the guide
    log_q: Tensor,  # (S,), the guide's log-density at them, in unconstrained space
    *,
    seed: int,
) -> Population:
    r"""Importance sampling around a guide, from proposals that were not fitted to its loss.

    If u has density q, then :math:`u' = m + c (u - m)` has density :math:`q(u) c^{-D}`: every
    guide can be widened without being evaluated anywhere but at its own draws. A guide that leaves
    out a tail, or a mode close by, has weights that hide it; the widened draws reach there, and
    proposals adapted to the weights of both go on from there (up to 50 coordinates). If the
    evidence comes out larger than what the guide's own weights say, the guide misses mass.

    The factor c is chosen such that a fifth of the draws stay effective where the guide is normal
    and exact, :math:`(\sqrt{2 c^2 - 1} / c^2)^D = 1/5`, and at most 2.

    Args:
        target: the model's density in unconstrained space.
        u: draws of the guide.
        log_q: the guide's log-density at them.
        seed: of the proposals' fits.

    Returns:
        The weighted draws with the most effective ones: of the widened guide, or of a proposal.
    """
    size, factor = u.shape[1], _factor(u.shape[1])
    moved = u.mean(0) + factor * (u - u.mean(0))
    own = Population(u, _log_p(target, u) - log_q.double())
    widened = Population(moved, _log_p(target, moved) - log_q.double() + size * math.log(factor))
    if size > MOST_COORDINATES:
        return widened
    both = torch.cat([own.log_w, widened.log_w])
    if not bool((both > -math.inf).any()):
        return widened
    proposal = StudentMixture.fitted(torch.cat([own.u, moved]), both, seed)
    adapted = adapt(target, proposal, num_draws=len(u), seed=seed)
    return max(widened, adapted, key=lambda population: population.effective_draws)


def _log_p(target: Target, u: Tensor) -> Tensor:
    return target(u).double().nan_to_num(nan=-math.inf, posinf=-math.inf)


def _factor(size: int) -> float:
    squared = KEPT ** (2 / size)  # of the efficiency per coordinate
    return min(MOST_WIDE, math.sqrt((1 + math.sqrt(1 - squared)) / squared))
