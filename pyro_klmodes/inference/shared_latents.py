"""Latents that all batches share, beside data of which a model sees one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pyro import poutine
from torch import Tensor

from pyro_klmodes.inference.batches import Call
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.inference.modules import evaluating
from pyro_klmodes.inference.stream import Stream
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import split_scale
from pyro_klmodes.tracing.runs import Pair, run
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["SharedLatent", "shared_latent"]


class SharedLatent(NamedTuple):
    """A latent outside of the plate of the data.

    Attributes:
        latent: its name.
        plate: the plate that is as long as the batch and holds observations.
        scaled: whether the observations count for more than one batch: the plate is subsampled, or
            a ``poutine.scale`` is around them.
    """

    latent: str
    plate: str
    scaled: bool


def shared_latent(
    model: Callable[..., Any], guide: Callable[..., Any], stream: Stream
) -> SharedLatent | None:
    """The first latent of the model that several batches share; None if there is none.

    Model and guide are run once on the first batch; random states stay as they are.
    """
    if stream.batches is None or stream.batches_per_epoch == 1:
        return None
    call = stream.first()
    lengths = _lengths(call, stream)
    with seeded(None), evaluating(model, guide), poutine.block():
        trace = run(Pair(model, guide, *call), particles=Single()).model
    sites = scored_sites(trace)
    scaled: dict[str, bool] = {}  # by the name of the plate
    for site in sites:
        if not is_latent(site):
            for frame in site["cond_indep_stack"]:
                if frame.size in lengths:
                    own, ratios = split_scale(site)
                    once = not ratios and not isinstance(own, Tensor) and own == 1.0
                    scaled[frame.name] = scaled.get(frame.name, True) and not once
    for site in sites:
        around = {frame.name for frame in site["cond_indep_stack"]}
        if scaled and is_latent(site) and not around & set(scaled):
            plate = next(iter(scaled))
            return SharedLatent(site["name"], plate, all(scaled.values()))
    return None


def _lengths(call: Call, stream: Stream) -> set[int]:
    """Of the tensors of a batch; what is passed beside it does not count."""
    positional = call.args[: len(call.args) - len(stream.args)]
    named: Mapping[str, Any] = {n: x for n, x in call.kwargs.items() if n not in stream.kwargs}
    parts = [*positional, *named.values()]
    return {len(x) for x in parts if isinstance(x, Tensor) and x.dim()}
