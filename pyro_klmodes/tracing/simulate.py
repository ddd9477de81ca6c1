"""Draw latents and data from a model, and have the model observe these data instead of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.plates import split_scale, subsampled
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.simulated import run_anew

__all__ = ["Simulation", "learned_names", "observing", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """Values of all sites in one run of a model.

    Attributes:
        latents: values of the latent sites by name.
        data: values of the observed sites by name.
    """

    latents: Mapping[str, Tensor]
    data: Mapping[str, Tensor]


def simulate(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Simulation:
    """Draw latents from their prior and data given these.

    Raises:
        UnsupportedStructure: for ``pyro.factor``, ``poutine.scale`` and minibatches, with which a
            run does not draw from the density that inference sees.
        NotDefined: if a site cannot be sampled.
        InvalidArgument: if there is nothing observed or nothing latent.
    """
    run = run_anew(model, args, kwargs)
    for name, site in run.trace.nodes.items():
        if site["type"] == "sample":
            _refuse(name, site)
    latents = {n: s["value"] for n, s in run.latents.items()}
    data = {n: run.trace.nodes[n]["value"] for n in run.observed}
    if not data or not latents:
        missing = "latent" if data else "observed"
        raise InvalidArgument(f"the model has no {missing} site: there is nothing to calibrate.")
    return Simulation(latents, data)


def _refuse(name: str, site: Mapping[str, Any]) -> None:
    if isinstance(site["fn"], dist.Unit):
        raise UnsupportedStructure(
            f"site '{name}' is a pyro.factor: its weight has no part in a simulation, so that the "
            "simulated data would be those of another model. Express it as a pyro.sample."
        )
    plates = subsampled(site)
    if plates:
        raise UnsupportedStructure(
            f"plate '{next(iter(plates))}' around site '{name}' sees a minibatch. Simulate all "
            "data: call the model without subsample_size."
        )
    scale, _ = split_scale(site)
    if isinstance(scale, Tensor) or scale != 1.0:
        raise UnsupportedStructure(
            f"site '{name}' is under poutine.scale, which inference sees and a simulation does "
            "not. Take the scale off."
        )


class _Observe(Messenger):
    """Observe given values at the sites that are observed."""

    def __init__(self, data: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.data = data

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] and msg["name"] in self.data:
            msg["value"] = self.data[msg["name"]]


def observing(model: Callable[..., Any], data: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The model with other data at its observed sites, wherever it has its own from."""
    observed: Callable[..., Any] = _Observe(data)(model)
    return observed


@same_random_state()
def learned_names(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[str]:
    """Names of the parameters that a model would learn."""
    with poutine.block(), torch.no_grad(), poutine.trace(param_only=True) as tracer:
        model(*args, **kwargs)
    return list(tracer.trace.nodes)
