"""Dream: latents and data from the model itself, for the sleep phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.observed import Observed
from pyro_klmodes.tracing.plates import split_scale
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.simulated import run_anew

__all__ = ["Dream", "dream"]


@dataclass(frozen=True)
class Dream:
    """One simulation of a model, with the plates and the minibatch of a call.

    Attributes:
        latents: values of the latent sites, constants.
        supports: of these sites.
        data: simulated values of the observed sites; elements that are masked out stay as observed.
        observed: what the call observes really.
        indices: of the minibatch, by name of the subsampled plate.
        trace: of the run.
    """

    latents: Mapping[str, Tensor]
    supports: Mapping[str, Any]
    data: Mapping[str, Tensor]
    observed: Mapping[str, Observed]
    indices: Mapping[str, Tensor]
    trace: Trace


def dream(pair: Pair) -> Dream:
    """Draw latents from their prior and data given these, at the current parameters.

    ``poutine.scale`` on latent sites has no part in it: the posterior of the model itself is what
    the guide is to learn from dreams.

    Raises:
        UnsupportedStructure: for ``pyro.factor`` and for a scale on observed sites, with which
            the model that is simulated is not the one that is inferred.
        NotDefined: if a site cannot be sampled.
        InvalidArgument: if nothing is observed.
    """
    run = run_anew(pair.model, pair.args, pair.kwargs)
    for name, site in run.trace.nodes.items():
        if site["type"] == "sample":
            _refuse(name, site, observed=name in run.observed)
    if not run.observed:
        raise InvalidArgument("sleep: the model observes nothing, so there is nothing to simulate.")
    nodes = run.trace.nodes
    return Dream(
        latents={n: s["value"].detach() for n, s in run.latents.items()},
        supports={n: s["fn"].support for n, s in run.latents.items()},
        data={n: _masked_as_observed(nodes[n], seen) for n, seen in run.observed.items()},
        observed=run.observed,
        indices={n: s["value"] for n, s in nodes.items() if site_is_subsample(s)},
        trace=run.trace,
    )


def _refuse(name: str, site: Mapping[str, Any], *, observed: bool) -> None:
    if isinstance(site["fn"], dist.Unit):
        raise UnsupportedStructure(
            f"sleep: site '{name}' is a pyro.factor. Its weight has no part in a simulation, so "
            "that the guide would learn the posterior of another model. Express it as a "
            "pyro.sample, or use the wake phases only (sleep_phi=0)."
        )
    scale, _ = split_scale(site)
    if observed and (isinstance(scale, Tensor) or scale != 1.0):
        raise UnsupportedStructure(
            f"sleep: observed site '{name}' is under poutine.scale, so that inference sees another "
            "likelihood than the one that is simulated. Take the scale off, or use the wake "
            "phases only (sleep_phi=0)."
        )


def _masked_as_observed(site: Mapping[str, Any], seen: Observed) -> Tensor:
    """The simulated value, and what was observed where a mask takes elements out."""
    value: Tensor = site["value"].detach()
    if seen.mask is None:
        return value
    counts = seen.mask.reshape(seen.mask.shape + (1,) * seen.event_dim)
    return torch.where(counts.to(value.device), value, seen.value.to(value))
