"""Data drawn anew: from the posterior's latent values, and from the prior."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.tracing.allowed import CollectAllowed
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.many_runs import Pieces, value_piece
from pyro_klmodes.tracing.observe_anew import ObserveAnew
from pyro_klmodes.tracing.over_particles import NotMapped, over_particles
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.runs import run_model
from pyro_klmodes.tracing.visits import Kept, Piece, Visit, stitch

__all__ = ["predict", "prior"]


def predict(
    at: ModelAt,
    values: Mapping[str, Tensor],  # of all latent sites, {site: (s, *site_shape)}
) -> dict[str, Tensor]:  # {observed site: (s, *site_shape)}
    """Draw every observed site anew, once for each draw of the latent sites.

    Raises:
        NotDefined: if an observed site has a density but cannot be sampled.
    """

    def run(here: Mapping[str, Tensor], particles: Particles) -> Pieces:
        with ObserveAnew():
            trace = _sampled(at, particles, here)
        return {
            name: value_piece(trace.nodes[name]["value"], info, particles)
            for name, info in at.sites.items()
            if info.kind == "observed"
        }

    found = at.over(values, run, "plain", check=at.all_of_it)
    return {name: piece.value for name, piece in found.items()}


def prior(
    at: ModelAt,
    count: int,
) -> dict[str, Tensor]:  # {site: (count, *site_shape)}
    """Draw every site of a model from its prior, the observed ones included.

    ``pyro.factor`` takes no part in it.

    Raises:
        NotDefined: if a site has a density but cannot be sampled.
    """
    with poutine.block(), torch.no_grad(), ObserveAnew():
        few = [_one_prior(at, Single(at.nesting)) for _ in range(3)]
        latents = {
            n: torch.cat([draw[n] for draw in few])
            for n, info in at.sites.items()
            if info.kind in ("latent", "enumerated")
        }
        way = at.way_of(latents) if latents else "together"
        if way == "together":
            return _one_prior(at, Together(count, at.nesting))
        mapped = _mapped_prior(at, count) if way == "mapped" else None
        if mapped is not None:
            return mapped
        draws = [_one_prior(at, Single(at.nesting)) for _ in range(count)]
    return {name: torch.cat([draw[name] for draw in draws]) for name in draws[0]}


def _mapped_prior(at: ModelAt, count: int) -> dict[str, Tensor] | None:
    """All draws in one run that is mapped over them; None if torch cannot do that.

    Nor is it done where a value is not allowed: runs of their own then complain of it.
    """

    def one(_: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        with CollectAllowed() as checks:
            return _one_prior(at, Single(at.nesting)), checks.found

    before = torch.get_rng_state()
    with suppress(NotMapped):
        found, allowed = over_particles(one, {"draws": torch.zeros(count)}, randomness="different")
        if all(bool(check.all()) for check in allowed):
            return {name: value.squeeze(1) for name, value in found.items()}
    torch.set_rng_state(before)
    return None


def _one_prior(at: ModelAt, particles: Particles) -> dict[str, Tensor]:
    """One run, or one for each minibatch, in which no value is drawn twice."""
    kept = Kept()
    parts: dict[Hashable, list[tuple[Visit, Piece]]] = {}
    for visit in at.visits:
        trace = _sampled(at, particles, kept.at(visit))
        for name, info in at.sites.items():
            if info.kind == "factor":
                continue
            site = trace.nodes[name]
            value = torch.as_tensor(site["value"])
            if is_latent(site) and info.kind != "observed":
                kept.keep(name, value, info.axes, visit)
            parts.setdefault(name, []).append((visit, value_piece(value, info, particles)))
    return {str(name): stitch(found, at.sizes).value for name, found in parts.items()}


def _sampled(at: ModelAt, particles: Particles, values: Mapping[str, Tensor]) -> Any:
    try:
        return run_model(at.pair, particles, values, enumerated=False)
    except NotImplementedError as error:
        raise NotDefined(
            "a site of the model has a density but cannot be sampled, so there are no draws of "
            f"it: leave the predictive and prior groups out. ({error!r})"
        ) from error
