"""The values of some particles out of those of a whole block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.tracing.handlers import is_latent

__all__ = ["chunked", "joined", "particle_axes"]


def particle_axes(
    guide: Trace,
    nesting: int,
    count: int,
) -> dict[str, int | None]:
    """For every value that a guide draws, which of its dimensions is that of the particles.

    Args:
        guide: a run of a guide for many particles.
        nesting: depth of the deepest plate; particles are left of it.
        count: how many there are.

    Returns:
        By name; None where all particles have one value.
    """
    found: dict[str, int | None] = {}
    for name, site in guide.nodes.items():
        if is_latent(site):
            axis = site["value"].dim() - site["fn"].event_dim - nesting - 1
            has_rows = axis >= 0 and site["value"].size(axis) == count
            found[name] = axis if has_rows else None
    return found


def chunked(
    x: Tensor,  # (..., count, ...)
    axis: int | None,
    count: int,
    size: int,  # at most count
) -> Sequence[Tensor]:
    """Rows along an axis in chunks of one size; the last two overlap where it does not divide."""
    if axis is None:
        return [x] * -(-count // size)
    chunks = list(x.split(size, axis))
    if count % size:
        chunks[-1] = x.narrow(axis, count - size, size)
    return [chunk.contiguous() for chunk in chunks]


def joined(
    chunks: Sequence[Tensor],  # as of ``chunked``: (..., size, ...)
    axis: int,  # negative
    count: int,
    size: int,
) -> Tensor:  # (..., count, ...)
    """Rows from chunks; a tensor that has no rows is the same in every chunk."""
    first, last = chunks[0], chunks[-1]
    if first.dim() < -axis or first.size(axis) != size:
        return first
    rest = count % size
    if rest:
        last = last.narrow(axis, size - rest, rest)
    return torch.cat([*chunks[:-1], last], axis)
