"""A defensive proposal: most particles from the guide, some from the model's prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.guide_inverse import GuideInverse
from pyro_klmodes.tracing.handlers import Cut, is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.runs import Pair, run_model
from pyro_klmodes.tracing.sampling import sample, values_of
from pyro_klmodes.tracing.weighing import to_cells

__all__ = ["sample_defensively"]


def sample_defensively(
    pair: Pair,
    layout: Layout,
    particles: int,
    share: float,
    outer: int = 1,
) -> Draws:
    r"""Draw from :math:`r = (1 - \delta) q + \delta\, p(z)`, the prior being the broad component.

    Each cell of each particle takes its latent values from the guide or from the prior by a coin
    of its own; the guide is then evaluated at the mixed values, and ``log_r`` is the mixture's
    density, so that ``log_w`` weighs against what really proposed the draws.

    Raises:
        UnsupportedStructure: if the prior cannot be sampled or evaluated on its own: particles
            that do not share a run, enumerated sites, an improper prior, scales, or a guide with
            auxiliary randomness.
    """
    if not layout.vectorised or layout.enumerated:
        _refuse("it needs a model that broadcasts over particles and has no enumerated sites")
    count = particles * outer
    shape = Together(count, layout.nesting)
    with torch.no_grad():
        own = sample(pair, layout, count, Cut.DRAWS)
        prior = _prior_sites(pair, shape, own)
        if not prior:  # nothing to draw, from either of them
            return sample(pair, layout, particles, Cut.DRAWS, outer=outer)
        coins = torch.rand_like(own.log_p) < share
        mixed = {
            n: torch.where(_coins_of(site, coins, own), values_of(site), own.values[n])
            for n, site in prior.items()
        }
        inverse = GuideInverse.of(pair, {n: s["fn"].support for n, s in prior.items()})
        if inverse.undetermined(mixed):
            _refuse(f"guide site '{inverse.undetermined(mixed)[0]}' is random beyond the latents")
        at = {**own.indices, **inverse(mixed, count, layout.nesting)}
    draws = sample(pair, layout, particles, Cut.DRAWS, outer=outer, fixed=at)
    log_prior = _log_prior(draws, shape, tuple(prior))
    log_r = torch.logaddexp(
        math.log1p(-share) + draws.log_q.detach(), math.log(share) + log_prior.detach()
    )
    return replace(draws, log_r=log_r)


def _refuse(reason: str) -> None:
    raise UnsupportedStructure(f"ForwardKL(defensive=...): {reason}. Use defensive=0.")


def _prior_sites(pair: Pair, shape: Together, own: Draws) -> dict[str, Mapping[str, Any]]:
    """The model's latent sites, drawn from their prior on the guide's minibatch."""
    try:
        with poutine.block():
            trace = run_model(pair, shape, own.indices, enumerated=False)
    except NotImplementedError as error:
        _refuse(f"the prior cannot be sampled ({error})")
    return {n: s for n, s in trace.nodes.items() if is_latent(s) and n in own.values}


def _coins_of(
    site: Mapping[str, Any],
    coins: Tensor,  # (count, *local)
    draws: Draws,
) -> Tensor:  # (count, *batch, *ones), broadcastable with the site's values
    """The coins laid out along the local plates of a site."""
    plates = plates_of(site)
    local = {plates[name]: coins.shape[1 + i] for i, name in enumerate(draws.plates)}
    deepest = max((-d for d in plates.values()), default=0)
    batch = [local.get(d, 1) for d in range(-deepest, 0)]
    return coins.reshape((coins.shape[0], *batch, *(1,) * site["fn"].event_dim))


def _log_prior(
    draws: Draws, shape: Together, names: tuple[str, ...]
) -> Tensor:  # the shape of draws.log_q
    """Prior log-density of the latent values, cell by cell."""
    terms = [t for where, t in draws.terms if where == "model" and t.name in names]
    scales = [t.scale for _, t in draws.terms]
    if any(isinstance(s, Tensor) or s != scales[0] for s in scales):
        _refuse("a poutine.scale on some sites only changes what the prior is")
    cells = [
        to_cells(t.log_prob, shape.dim, [t.plates[name] for name in draws.plates]) for t in terms
    ]
    return sum(cells, start=cells[0].new_zeros(())).reshape(draws.log_q.shape)
