"""From cells, the elements of the local plates, to the batch dimensions of a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pyro_klmodes.tracing.plates import plates_of

__all__ = ["along_site"]


def along_site(
    cells: Tensor,  # (n, *local)
    site: Mapping[str, Any],
    plates: Sequence[str],
) -> Tensor:  # (n, *batch, *ones), broadcastable with the values of the site
    """Lay numbers out, one for every cell, along the local plates of a site.

    Args:
        cells: the numbers, with any leading dimension.
        site: a node of a trace, or a message.
        plates: names of the local plates, in the order of the axes of ``cells``.
    """
    dims = plates_of(site)
    local = {dims[name]: cells.shape[1 + i] for i, name in enumerate(plates)}
    deepest = max((-d for d in dims.values()), default=0)
    batch = [local.get(d, 1) for d in range(-deepest, 0)]
    return cells.reshape((cells.shape[0], *batch, *(1,) * site["fn"].event_dim))
