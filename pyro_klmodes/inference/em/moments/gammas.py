"""Gammas with an unknown concentration: its equation is solved by Newton."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import Gamma
from pyro_klmodes.guides.site_families.roots import inverse_digamma
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
from pyro_klmodes.inference.em.moments.groups import grouped
from pyro_klmodes.inference.em.moments.sums import padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["Gammas"]


class Gammas(Block):
    r"""Concentrations a and rates b of Gammas.

    Where each concentration goes with one rate they are found together, from the mean of x and of
    log x; ``Gamma.from_mean_parameters``. Where they are shared in another way, or one of them is
    known, first the rates, then the concentrations at the new rates:

    .. math:: b = \sum_{g \in b} a_g n_g \Big/ \sum_{g \in b} n_g E_g[x] \qquad
        \psi(a) = \sum_{g \in a} n_g (E_g[\log x] + \log b_g) \Big/ \sum_{g \in a} n_g

    which is conditional maximisation (ECM), see ``Normals``.

    Source: Minka (2002); Meng and Rubin (1993).
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        found = grouped([(u.maps.get("concentration"), u.maps.get("rate")) for u in uses])
        self.cells = found.cells
        self.shapes, self.shape = found.members[:, 0].unique(return_inverse=True)
        self.rates, self.rate = found.members[:, 1].unique(return_inverse=True)
        count = len(found.members)
        one_to_one = len(self.shapes) == count and len(self.rates) == count
        self.paired = one_to_one and bool((found.members >= 0).all())

    def sufficient(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {count, sum, logs: (R, G)}
        """Weights, and sums of x and of its logarithm, of the groups."""
        total: Tensor | None = None
        for i, use, factor, core in self.present(factors):
            part = self._of_site(i, use, factor, core)
            total = part if total is None else total + part
        if total is None:
            return {}
        return dict(zip(("count", "sum", "logs"), total.unbind(-1), strict=True))

    def _of_site(self, i: int, use: Use, factor: Factor, core: Core) -> Tensor:  # (R, G, 3)
        grid = elements(use, factor, core)
        x = finite(factor, core).to(factor.weight)
        logs = x.log()
        if "rate" not in use.maps:  # then it is a matter of units
            rate = unexpanded(core.fn.rate)
            x, logs = x * rate, logs + rate.log()
        sums = torch.stack([x, logs], -1)
        if core.mask is not None:
            sums = sums * core.mask[..., None]
        cells = padded(self.cells[i], len(grid.shape))
        count = grid.sum(core.mask, cells.shape)
        both = grid.sum(sums, cells.shape, features=1)
        return scatter(torch.cat([count[..., None], both], -1), cells, len(self.shape))

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """Both together, or rates and then concentrations."""
        count, total, logs = (statistics[n] for n in ("count", "sum", "logs"))
        members = self.shapes[self.shape], self.rates[self.rate]
        empty = count <= EMPTY * count.amax(1, keepdim=True)
        told = "has no weight left in site {sites}. Start elsewhere, or use fewer components."
        if self.paired and not bool(update.held[torch.cat(members)].any()):
            complaints(self, update, empty, members[0], told)
            safe = torch.where(empty, torch.ones_like(count), count)
            mean_log, mean = logs / safe, total / safe
            same = ~empty & (mean.log() - mean_log <= 8 * self.entries.eps * (1 + mean_log.abs()))
            complaints(
                self,
                update,
                same,
                members[0],
                "is infinite: what is left in site {sites} does not vary. Start elsewhere, or use "
                "fewer components.",
            )
            bad = empty | same
            mean = torch.where(bad, torch.ones_like(mean), mean)
            mean_log = torch.where(bad, -torch.ones_like(mean), mean_log)
            found = Gamma().from_mean_parameters((mean_log, mean))
            update.write(members[0], found["concentration"])
            update.write(members[1], found["rate"])
            return
        concentration = update.flat[:, members[0]]  # of every group; all have one
        self._one_by_one(concentration, (count, total, logs), update)

    def _one_by_one(
        self, concentration: Tensor, sums: tuple[Tensor, Tensor, Tensor], update: Update
    ) -> None:
        count, total, logs = sums
        told = "has no weight left in site {sites}. Start elsewhere, or use fewer components."
        mine = self.rates >= 0
        above = _summed(concentration * count, self.rate, len(self.rates))[:, mine]
        below = _summed(total, self.rate, len(self.rates))[:, mine]
        empty = below <= 0
        complaints(self, update, empty, self.rates[mine], told)
        update.write(self.rates[mine], above / torch.where(empty, torch.ones_like(below), below))

        known = self.rates[self.rate] < 0
        rate = torch.where(known, 1.0, update.flat[:, self.rates[self.rate]])
        weight = _summed(count, self.shape, len(self.shapes))
        target = _summed(logs + count * rate.log(), self.shape, len(self.shapes))
        empty = weight <= EMPTY * weight.amax(1, keepdim=True)
        complaints(self, update, empty, self.shapes, told)
        mean = torch.where(empty, torch.zeros_like(target), target / weight.clamp(min=1e-300))
        update.write(self.shapes, inverse_digamma(mean))


def _summed(
    x: Tensor,  # (R, G)
    places: Tensor,  # (G,)
    count: int,
) -> Tensor:  # (R, count)
    return x.new_zeros(len(x), count).index_add(1, places, x)
