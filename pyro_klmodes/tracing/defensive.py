"""A defensive proposal: most particles from the guide, some from a broad distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from pyro_klmodes.tracing.along_site import along_site
from pyro_klmodes.tracing.broad import BroadGuide, Prior, refuse
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.guide_inverse import GuideInverse
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import sample, values_of

__all__ = ["sample_defensively"]


def sample_defensively(
    pair: Pair,
    layout: Layout,
    particles: int,
    share: float,
    outer: int = 1,
    broad: Callable[..., Any] | None = None,
    *,
    by_site: bool = False,
) -> Draws:
    r"""Draw from :math:`r = (1 - \delta) q + \delta\, b`, with a broad distribution b.

    Each cell of each particle takes its latent values from the guide or from b by a coin of its
    own; the guide is then evaluated at the mixed values, and ``log_r`` is the mixture's density, so
    that ``log_w`` weighs against what really proposed the draws.

    Args:
        pair: what to run.
        layout: its structure.
        particles: K.
        share: delta.
        outer: M.
        broad: a guide for b; None is the model's prior.
        by_site: whether to give the densities of every latent site too.

    Raises:
        UnsupportedStructure: if b cannot be sampled or evaluated on its own: particles that do not
            share a run, enumerated sites, an improper prior, scales, or a guide with auxiliary
            randomness.
    """
    if not layout.vectorised or layout.enumerated:
        refuse("they need a model that broadcasts over particles and has no enumerated sites")
    count = particles * outer
    shape = Together(count, layout.nesting)
    source = (
        Prior(pair, shape)
        if broad is None
        else BroadGuide(broad, pair, shape, settled=layout.settled)
    )
    with torch.no_grad():
        own = sample(pair, layout, count, Cut.DRAWS)
        sites = source.draw(own)
        if not sites:  # nothing to draw, from either of them
            return sample(pair, layout, particles, Cut.DRAWS, outer=outer, by_site=by_site)
        coins = torch.rand_like(own.log_p) < share
        mixed = {
            n: torch.where(along_site(coins, site, own.plates), values_of(site), own.values[n])
            for n, site in sites.items()
        }
        supports = {n: s["fn"].support for n, s in sites.items()}
        inverse = GuideInverse.of(pair, supports, settled=layout.settled)
        if inverse.undetermined(mixed):
            refuse(f"guide site '{inverse.undetermined(mixed)[0]}' is random beyond the latents")
        at = {**own.indices, **inverse(mixed, count, layout.nesting)}
    draws = sample(pair, layout, particles, Cut.DRAWS, outer=outer, fixed=at, by_site=by_site)
    log_r = torch.logaddexp(
        math.log1p(-share) + draws.log_q.detach(),
        math.log(share) + source.log_density(draws, mixed).detach(),
    )
    return replace(draws, log_r=log_r)
