"""Values drawn from a guide by itself, without its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.plates import depth
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.sampling import values_of
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["draw_alone"]


def draw_alone(
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    n: int,
) -> dict[str, Tensor]:
    """Draw n values of every latent site in one run, ``(n, *site_shape)``.

    The indices of subsampled plates come under the plate's name.
    """
    pair = Pair(guide, guide, args, kwargs)
    with poutine.block(), torch.no_grad():
        single = run_guide(pair, Single(), {}, detach=False)
        nesting = depth(scored_sites(single.trace))
        run = run_guide(pair, Together(n, nesting), single.indices, detach=True)
    values = {name: values_of(s) for name, s in run.trace.nodes.items() if is_latent(s)}
    return values | {name: run.indices[name] for name in run.indices if _is_part(name, run.trace)}


def _is_part(plate: str, trace: Any) -> bool:
    """Whether a plate holds a minibatch, and not all of its data."""
    fn = trace.nodes[plate]["fn"]
    return bool(len(trace.nodes[plate]["value"]) < fn.size)
