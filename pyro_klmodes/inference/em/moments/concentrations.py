"""Betas and Dirichlets with unknown concentrations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families.simplex_moments import concentration_with_mean_logs
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
from pyro_klmodes.inference.em.moments.entries import Entries
from pyro_klmodes.inference.em.moments.sums import padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use, vector_length

__all__ = ["Concentrations", "rows_of"]


class Concentrations(Block):
    r"""Concentrations with :math:`\psi(a_i) - \psi(\sum_j a_j) = E[\log x_i]`.

    The entries of a Dirichlet, or the two concentrations of a Beta, for which x is ``(x, 1 - x)``;
    none of them twice in one distribution or shared between different ones.

    Source: Minka (2000).
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        self.length = vector_length(uses[0])
        maps = [rows_of(u) for u in uses]
        flat = torch.cat([m.reshape(-1, self.length) for m in maps])
        self.rows, numbers = flat.unique(dim=0, return_inverse=True)
        parts = numbers.split([m.shape[:-1].numel() for m in maps])
        self.cells = [p.reshape(m.shape[:-1]) for p, m in zip(parts, maps, strict=True)]

    def sufficient(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {count: (R, rows), logs: (R, rows, C)}
        """Weights, and sums of logarithms."""
        total: Tensor | None = None
        for i, use, factor, core in self.present(factors):
            part = self._of_site(i, use, factor, core)
            total = part if total is None else total + part
        return {} if total is None else {"count": total[..., 0], "logs": total[..., 1:]}

    def _of_site(self, i: int, use: Use, factor: Factor, core: Core) -> Tensor:
        beta = use.family == "Beta"
        x = finite(factor, core, 0 if beta else 1, fill=0.5).to(factor.weight)
        logs = torch.stack([x.log(), (-x).log1p()], -1) if beta else x.log()
        grid = elements(use, factor, core, vectors=not beta)
        if core.mask is not None:
            logs = logs * core.mask[..., None]
        cells = padded(self.cells[i], len(grid.shape))
        count = grid.sum(core.mask, cells.shape)[..., None]
        sums = grid.sum(logs, cells.shape, features=1)
        return scatter(torch.cat([count, sums], -1), cells, len(self.rows))

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """A root in one unknown for every row."""
        count, logs = statistics["count"], statistics["logs"]
        empty = count <= EMPTY * count.amax(1, keepdim=True)
        told = "has no weight left in site {sites}. Start elsewhere, or use fewer components."
        complaints(self, update, empty, self.rows[:, 0], told)
        mean = logs / torch.where(empty, torch.ones_like(count), count)[..., None]
        # by Jensen's inequality; equal if nothing varies
        same = ~empty & (1 - mean.exp().sum(-1) <= 8 * self.entries.eps)
        complaints(
            self,
            update,
            same,
            self.rows[:, 0],
            "is infinite: what is left in site {sites} does not vary. Start elsewhere, or use "
            "fewer components.",
        )
        bad = (empty | same)[..., None]
        found = concentration_with_mean_logs(torch.where(bad, -2.0 * self.length, mean))
        update.write(self.rows.flatten(), found.flatten(1))


def rows_of(use: Use) -> Tensor:  # (*batch, C)
    """The entries of a whole distribution, in one row."""
    if use.family == "Dirichlet":
        return use.maps["concentration"]
    both = [use.maps["concentration1"], use.maps["concentration0"]]
    return torch.stack(torch.broadcast_tensors(*both), -1)
