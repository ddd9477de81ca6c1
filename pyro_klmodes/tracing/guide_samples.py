"""Latent values from a guide, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.sampling import values_of
from pyro_klmodes.tracing.survey import survey

__all__ = ["sample_guide"]


def sample_guide(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    n: int,
    layout: Layout | None = None,
) -> dict[str, Tensor]:
    """Draw n values of every latent site that is not auxiliary, ``(n, *site_shape)``.

    Args:
        model: a model.
        guide: a guide for it.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        n: number of draws.
        layout: what ``survey`` found out about the pair, if it was asked before.
    """
    pair = Pair(model, guide, args, kwargs)
    layout = layout or survey(pair)
    with poutine.block():
        if layout.vectorised:
            trace = run_guide(pair, Together(n, layout.nesting), {}, detach=True).trace
            return {name: values_of(trace.nodes[name]) for name in _latents(trace)}
        traces = [run_guide(pair, Single(), {}, detach=True).trace for _ in range(n)]
    return {
        name: torch.stack([t.nodes[name]["value"] for t in traces]) for name in _latents(traces[0])
    }


def _latents(trace: Any) -> list[str]:
    return [
        n
        for n, s in trace.nodes.items()
        if is_latent(s) and not s["infer"].get("is_auxiliary", False)
    ]
