"""Elements of several sites in groups that share all parameters, each group with a centre."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.inference.em.moments.sums import padded

__all__ = ["Groups", "centre_of", "group_centres", "grouped"]


@dataclass(frozen=True)
class Groups:
    """The distinct tuples of members that elements are distributed by.

    Attributes:
        members: ``(G, n)``, -1 where an argument is no parameter.
        cells: for every site the group of its elements, size 1 where it does not vary.
    """

    members: Tensor
    cells: list[Tensor]


def grouped(
    maps: list[tuple[Tensor | None, ...]],  # for every site, n maps that broadcast
) -> Groups:
    """Number the distinct tuples.

    Example:
        >>> groups = grouped([(torch.tensor([[0], [1]]), torch.tensor([5, 6])), (None, None)])
        >>> groups.members.tolist()
        [[-1, -1], [0, 5], [0, 6], [1, 5], [1, 6]]
        >>> groups.cells[0]
        tensor([[1, 2],
                [3, 4]])
    """
    tables = []
    for site in maps:
        filled = [torch.tensor(-1) if m is None else m for m in site]
        tables.append(torch.stack(torch.broadcast_tensors(*filled), -1))
    width = len(maps[0])
    rows = torch.cat([t.reshape(-1, width) for t in tables])
    members, inverse = rows.unique(dim=0, return_inverse=True)
    parts = inverse.split([t.shape[:-1].numel() for t in tables])
    cells = [p.reshape(t.shape[:-1]) for p, t in zip(parts, tables, strict=True)]
    return Groups(members, cells)


def centre_of(
    value: Tensor,  # (*elements, *event)
    cells: Tensor,  # (*elements), groups
    event_dim: int = 0,
) -> Tensor:  # (*elements, *event), size 1 where it is the same
    """The mean of the data, along the dimensions in which another index is another group.

    A mean per feature, and not one per datum: within a group the centre is constant.
    """
    dims = value.dim() - event_dim
    grid = padded(cells, dims)
    out = []
    for d in range(dims):
        # which axis of the groups this is, counted from the right
        axis = grid.dim() - dims + d
        if value.shape[d] == 1 or grid.shape[axis] == 1 or not _separate(grid, axis):
            out.append(d)
    good = value.isfinite()
    safe = torch.where(good, value, torch.zeros_like(value))
    if not out:
        return safe
    return safe.sum(out, keepdim=True) / good.sum(out, keepdim=True).clamp(min=1)


def _separate(grid: Tensor, axis: int) -> bool:
    """Whether no group is met at two indices of an axis."""
    shape = [1] * grid.dim()
    shape[axis] = grid.shape[axis]
    index = torch.arange(grid.shape[axis]).reshape(shape).expand(grid.shape)
    pairs = torch.stack([grid.flatten(), index.flatten()], -1).unique(dim=0)
    return len(pairs) == len(pairs[:, 0].unique())


def group_centres(
    centres: list[Tensor],  # (*elements, *event) for every site, constant within groups
    cells: list[Tensor],
    count: int,
    event_dim: int = 0,
) -> Tensor:  # (count, *event)
    """One centre for every group, between those of the sites that it is met in."""
    event = centres[0].shape[centres[0].dim() - event_dim :]
    total = torch.zeros(count, *event, dtype=torch.float64)
    met = torch.zeros(count, dtype=torch.float64)
    for centre, cell in zip(centres, cells, strict=True):
        spread = spread_over(centre, cell, event_dim)
        total.index_add_(0, cell.flatten(), spread.reshape(-1, *event))
        met.index_add_(0, cell.flatten(), torch.ones(cell.numel(), dtype=torch.float64))
    return total / met.clamp(min=1).reshape(-1, *[1] * event_dim)


def spread_over(centre: Tensor, cells: Tensor, event_dim: int = 0) -> Tensor:
    """The centre of every cell, double precision: ``(*cells, *event)``."""
    event = centre.shape[centre.dim() - event_dim :]
    lead = centre.shape[: centre.dim() - event_dim]
    extra = len(lead) - cells.dim()
    if extra > 0:  # constant there
        centre = centre.reshape((*lead[extra:], *event))
    return centre.double().expand((*cells.shape, *event))
