"""Weighted sums of the outer products of vectors with themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_klmodes.inference.em.moments.sums import Grid

__all__ = ["outer_sums"]

_LARGEST = 2**22  # numbers in a table of products: 32 megabytes in double precision


def outer_sums(
    grid: Grid,
    x: Tensor,  # (*elements, D), or (R, *elements, D)
    mask: Tensor | None,  # (*elements)
    keep: Sequence[int],
) -> Tensor:  # (R, *keep, D, D)
    """``sum w x x^T`` over the elements that are not kept.

    Only one triangle is multiplied out, for a part of the data at a time.
    """
    size = x.shape[-1]
    row, column = torch.tril_indices(size, size)
    dims = len(grid.shape)
    own = x.dim() - 1
    # the longest dimension that is summed over
    sizes = {d: x.shape[d] for d in range(own) if d >= own - dims and keep[d - own] == 1}
    longest = max(sizes, key=lambda d: sizes[d], default=None)
    if longest is None:
        parts = [slice(None)]
    else:
        n = sizes[longest]
        step = max(1, _LARGEST * n // (x[..., 0].numel() * len(row)))
        parts = [slice(i, i + step) for i in range(0, n, step)]
    total: Tensor | None = None
    for part in parts:
        if longest is None or len(parts) == 1:
            here, where, m = grid, x, mask
        else:
            d = longest - own  # from the right, without the vectors
            where = _cut(x, d - 1, part)
            m = None if mask is None else _cut(mask, d, part)
            weight = _cut(grid.weight, d, part)
            shape = list(grid.shape)
            shape[d] = where.shape[d - 1]
            here = Grid(grid.site, weight, torch.Size(shape))
        found = here.sum(_products(where, m), keep, features=1)
        total = found if total is None else total + found
    assert total is not None
    matrix = total.new_zeros(*total.shape[:-1], size, size)
    matrix[..., row, column] = total
    matrix[..., column, row] = total
    return matrix


def _products(
    x: Tensor,  # (*elements, D)
    mask: Tensor | None,  # (*elements)
) -> Tensor:  # (*elements, D * (D + 1) / 2), in the order of the rows of the lower triangle
    # coordinate by coordinate, which walks through memory in order
    coordinates = x.movedim(-1, 0).contiguous()
    other = coordinates if mask is None else coordinates * mask
    rows = [coordinates[: i + 1] * other[i] for i in range(x.shape[-1])]
    return torch.cat(rows).movedim(0, -1)


def _cut(x: Tensor, d: int, part: slice) -> Tensor:
    if -d > x.dim() or x.shape[d] == 1:
        return x
    return x.narrow(d, part.start, min(part.stop, x.shape[d]) - part.start)
