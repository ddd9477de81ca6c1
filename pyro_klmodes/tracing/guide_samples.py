"""Latent values from a guide, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_klmodes.tracing.blocks_of_draws import block_sizes
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
    """Draw n values of every latent site that is not auxiliary, ``(n, *site_shape)``, in blocks.

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
        if layout.together:
            return _in_blocks(pair, layout, n)
        traces = [run_guide(pair, Single(), {}, detach=True).trace for _ in range(n)]
    return {
        name: torch.stack([t.nodes[name]["value"] for t in traces]) for name in _latents(traces[0])
    }


def _in_blocks(pair: Pair, layout: Layout, n: int) -> dict[str, Tensor]:
    """Draws of the same blocks, and the same minibatch, as those of ``draws``."""
    found: dict[str, list[Tensor]] = {}
    indices: Mapping[str, Tensor] = {}
    for size in block_sizes(n, layout.numbers):
        drawn = run_guide(pair, Together(size, layout.nesting), indices, detach=True)
        indices = drawn.indices
        for name in _latents(drawn.trace):
            found.setdefault(name, []).append(values_of(drawn.trace.nodes[name]))
    return {name: torch.cat(values) for name, values in found.items()}


def _latents(trace: Any) -> list[str]:
    return [
        n
        for n, s in trace.nodes.items()
        if is_latent(s) and not s["infer"].get("is_auxiliary", False)
    ]
