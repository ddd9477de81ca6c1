"""Posterior probabilities of the states of discrete latents after a fit by EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.inference.result import FittedGuide
from pyro_klmodes.tracing.posterior_guide import PosteriorGuide
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.responsibilities import Responsibilities
from pyro_klmodes.tracing.sites import SiteInfo, describe

__all__ = ["memberships"]


@same_random_state()
def memberships(
    model: Callable[..., Any],
    guide: FittedGuide,
    params: Mapping[str, Tensor],  # {parameter: (*shape)}
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, Tensor]:  # {latent: (*plates, states)}
    """Look at the exact posterior, or at a guide that has the discrete latents.

    Raises:
        UnsupportedStructure: if the model has no discrete latent; if a guide has its others alone.
    """
    with pyro.get_param_store().scope(), poutine.block(), torch.no_grad():
        sites = describe(model, args, kwargs, known=frozenset(params))
    names = [n for n, site in sites.items() if site.kind == "enumerated"]
    if not names:
        raise UnsupportedStructure("the model has no discrete latent, so there are no states.")
    if isinstance(guide.unbound, PosteriorGuide):
        return _exact(model, params, args, kwargs, sites)
    with poutine.block(), torch.no_grad():
        drawn = poutine.trace(guide).get_trace(*args, **kwargs).nodes
    for name in names:
        if name not in drawn:
            continuous = [n for n, s in sites.items() if s.kind == "latent" and n not in params]
            raise UnsupportedStructure(
                f"discrete latent '{name}' was summed out given draws of {continuous}, so that its "
                "states have probabilities for every draw only. With e_step=CoordinateAscent() the "
                "guide has them."
            )
    return {name: _own(drawn[name]["fn"]) for name in names}


def _exact(
    model: Callable[..., Any],
    params: Mapping[str, Tensor],  # {parameter: (*shape)}
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    sites: Mapping[str, SiteInfo],
) -> dict[str, Tensor]:  # {latent: (*plates, states)}
    points = frozenset(n for n in params if n in sites)
    with pyro.get_param_store().scope(), poutine.block():
        posterior = Responsibilities(model, args, kwargs, sites, params, points)
        _, tables = posterior({n: v[None] for n, v in params.items()})
    found = {}
    for name, table in tables.items():
        weight = table[0].movedim(0, -1).reshape(*sites[name].batch_shape, -1)
        total = weight.sum(-1, keepdim=True)  # a scale multiplies it, a mask makes it zero
        found[name] = torch.where(total > 0, weight / total.where(total > 0, 1.0), 0.0)
    return found


def _own(fn: Any) -> Tensor:  # (*plates, states)
    states = fn.enumerate_support(expand=False)
    return fn.log_prob(states).exp().movedim(0, -1)
