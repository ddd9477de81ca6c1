"""What is legitimate in a model, a guide and a loss, but probably not what was meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from pyro_klmodes.losses import DivergenceLoss
from pyro_klmodes.tracing.plates import split_scale
from pyro_klmodes.tracing.runs import Traces
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["held_by_others", "scale_problems", "shared_parameters"]


def scale_problems(traces: Traces, loss: DivergenceLoss) -> list[str]:
    """A poutine.scale on some sites only tempers the target inside of a nonlinear objective."""
    if loss.objective.linear:
        return []
    scales = {
        f"{where} site '{s['name']}'": split_scale(s)[0]
        for where, trace in (("model", traces.model), ("guide", traces.guide))
        for s in scored_sites(trace)
    }
    numbers = {k: v for k, v in scales.items() if not isinstance(v, Tensor)}
    if len(numbers) == len(scales) and len(set(numbers.values())) <= 1:
        return []
    odd = next(k for k, v in scales.items() if isinstance(v, Tensor) or v != 1.0)
    return [
        f"{odd} has a poutine.scale that other sites do not share. It stays inside of the "
        "divergence and changes the target (tempering), not only the weight of the data."
    ]


def held_by_others(guide: Callable[..., Any]) -> set[int]:
    """Identities of the parameters in the param store that are not (yet) those of a guide."""
    bare = poutine.unwrap(guide)
    own = {id(p) for p in bare.parameters()} if isinstance(bare, pyro.nn.PyroModule) else set()
    return {id(p) for p in pyro.get_param_store()._params.values()} - own


def shared_parameters(guide: Callable[..., Any], held: set[int]) -> list[str]:
    """Two guides of one class share parameters by name through the global param store.

    A module takes over what the store holds under its names as soon as it runs, so that only the
    comparison with the state before tells.
    """
    bare = poutine.unwrap(guide)
    if not isinstance(bare, pyro.nn.PyroModule):
        return []
    shared = [p for p in bare.parameters() if id(p) in held]
    if not shared:
        return []
    name = pyro.get_param_store().param_name(shared[0])
    return [
        f"parameter '{name}' is shared through the param store with another module of the "
        "same name, so training one moves the other. Call pyro.clear_param_store() before, "
        "use fit(), or pyro.settings.set(module_local_params=True)."
    ]
