"""Probabilities of categories: the shares of weighted counts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import Core
from pyro_klmodes.inference.em.moments.block import (
    EMPTY,
    Block,
    Update,
    complaints,
    elements,
    finite,
)
from pyro_klmodes.inference.em.moments.entries import Entries, unexpanded
from pyro_klmodes.inference.em.moments.sums import Grid, padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["Simplices", "whole_rows"]


class Simplices(Block):
    r"""Rows of probabilities :math:`p_c = n_c / \sum_d n_d`, n the weighted counts.

    Of a Categorical the values are counted, of a OneHotCategorical and a Multinomial they are added
    up; a Dirichlet prior adds its concentration minus one. A row of which no category is ever
    chosen has no maximum.

    Source: Bishop (2006), sections 2.2 and 9.3.3.
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        starts = torch.cat([_starts(u, entries) for u in uses]).unique()
        lengths = [_length(int(start), entries) for start in starts]
        self.rows = {
            n: torch.stack([s for s, m in zip(starts, lengths, strict=True) if m == n])
            for n in sorted(set(lengths))
        }

    def sufficient(self, factors: Mapping[str, Factor]) -> dict[str, Tensor]:  # {counts: (R, P)}
        """The counts, and what priors add to them."""
        total: Tensor | None = None
        for _, use, factor, core in self.present(factors):
            entries = next(iter(use.maps.values()))
            if use.family == "Categorical":
                part = _counted(factor, core, entries, self.entries.count)
            else:
                grid = elements(use, factor, core)
                statistic = (
                    unexpanded(core.fn.concentration) - 1
                    if use.prior
                    else finite(factor, core, 1).to(factor.weight)
                )
                if core.mask is not None:
                    statistic = statistic * core.mask.unsqueeze(-1)
                part = grid.add_up(statistic, entries, self.entries.count)
            total = part if total is None else total + part
        return {} if total is None else {"counts": total}

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """The shares."""
        counts = statistics["counts"]
        for length, starts in self.rows.items():
            places = starts[:, None] + torch.arange(length)
            row = counts[:, places.flatten()].reshape(-1, len(starts), length)
            short = (row < 0).any(-1)
            complaints(
                self,
                update,
                short,
                starts,
                "has no posterior mode: the Dirichlet prior among sites {sites} has a "
                "concentration below one, which is more than the data make up for. Use at least "
                "one.",
                event_dim=1,
            )
            whole = row.sum(-1)
            empty = ~short & (whole <= EMPTY * whole.amax(1, keepdim=True))
            told = "has no weight left in site {sites}. Start elsewhere, use fewer components, or "
            complaints(
                self, update, empty, starts, told + "a Dirichlet prior (points=[...]).", event_dim=1
            )
            safe = torch.where(whole > 0, whole, torch.ones_like(whole))
            update.write(places.flatten(), (row / safe[..., None]).flatten(1))


def whole_rows(entries: Entries, numbers: Tensor) -> bool:
    """Whether each row is a row of one parameter, in any order."""
    length = numbers.shape[-1]
    ordered = numbers.sort(-1).values
    consecutive = bool((ordered == ordered[..., :1] + torch.arange(length)).all())
    return consecutive and all(
        _length(start, entries) == length
        and (start - entries.offsets[entries.owner(start)]) % length == 0
        for start in ordered[..., 0].unique().tolist()
    )


def _starts(use: Use, entries: Entries) -> Tensor:
    """The first entries of the rows that are selected."""
    return next(iter(use.maps.values())).sort(-1).values[..., 0].flatten()


def _length(entry: int, entries: Entries) -> int:
    shape = entries.parameters[entries.owner(entry)].value.shape
    return shape[-1] if shape else 1


def _counted(
    factor: Factor,
    core: Core,
    entries: Tensor,  # (*batch, C)
    count: int,
) -> Tensor:  # (R, count)
    """Weights added up by the entry that the value picks, at the size of weights at most."""
    value = factor.value
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise InvalidArgument(f"site '{factor.name}' has categories that are nan.")
    grid = Grid.of(factor, core.right, value, core.fn.batch_shape)
    dims = len(grid.shape)
    starts = value.dim() > dims  # values of every start
    chosen = value.long().clamp(0, entries.shape[-1] - 1)
    rows = padded(entries, dims + 1)
    shape = torch.broadcast_shapes(rows.shape[:-1], chosen.shape)
    rows = rows.expand(*shape, rows.shape[-1])
    places = rows.gather(-1, chosen.expand(shape)[..., None]).squeeze(-1)
    mask = core.mask
    if not starts:
        return scatter(grid.sum(mask, places.shape), places, count)
    keep = places.shape[1:]
    total = []
    for start, here in enumerate(places):
        r = slice(start, start + 1) if len(grid.weight) > 1 else slice(None)
        one = Grid(grid.site, grid.weight[r], grid.shape)
        total.append(scatter(one.sum(mask, keep), here, count))
    return torch.cat(total)
