"""Normals and LogNormals: means and standard deviations, shared in any way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.inference.em.factors import Factor
from pyro_klmodes.inference.em.moments.arguments import Core, core_of
from pyro_klmodes.inference.em.moments.block import (
    EMPTY,
    Block,
    Update,
    complaints,
    elements,
    finite,
)
from pyro_klmodes.inference.em.moments.entries import Entries, unexpanded
from pyro_klmodes.inference.em.moments.groups import (
    centre_of,
    group_centres,
    grouped,
    spread_over,
)
from pyro_klmodes.inference.em.moments.scale_forms import SCALE_FORMS, Form
from pyro_klmodes.inference.em.moments.sums import padded, scatter
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["Normals"]


class Normals(Block):
    r"""Means and standard deviations of Normals; of LogNormals, those of the logarithm.

    Elements with the same mean l and scale s are a group g, with the weight :math:`n_g` and the
    moments of x around a centre. Then

    .. math:: \mu_l = \sum_{g \in l} n_g \bar x_g / \sigma_g^2 \Big/ \sum_{g \in l} n_g / \sigma_g^2
        \qquad \sigma_s^2 = \sum_{g \in s} n_g E_g[(x - \mu_g)^2] \Big/ \sum_{g \in s} n_g

    in this order. Where all groups of a mean have the same scale it cancels, and this is the
    maximum; else the means are maximised at the scales before, and the scales at the new means:
    conditional maximisation (ECM), which increases the likelihood all the same. A Normal prior is
    one more datum of known scale. Scales that are data count as weights :math:`1 / \sigma^2`.

    Limits: moments are taken around the mean of the data of each feature, so that data at 10^6
    with a standard deviation of one lose nothing. A component that is much narrower than it is far
    from there loses digits: half of them where the ratio is 10^-4 in double precision.

    Source: Dempster, Laird and Rubin (1977); Meng and Rubin (1993).
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        found = grouped([(u.maps.get("loc", u.maps.get("value")), _scale(u)) for u in uses])
        self.cells = found.cells
        self.locs, self.loc = found.members[:, 0].unique(return_inverse=True)
        self.scales, self.scale = found.members[:, 1].unique(return_inverse=True)
        self.forms = [self._form(int(entry)) for entry in self.scales]
        self.centres = [
            centre_of(_data(u, *u.example), c) if _is_centred(u) else torch.zeros(())
            for u, c in zip(uses, self.cells, strict=True)
        ]
        self.centre = group_centres(self.centres, self.cells, len(self.loc))

    def sufficient(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {count, first, second: (R, G)}
        """Weights and centred moments of the groups."""
        total: Tensor | None = None
        for i, use, factor, core in self.present(factors):
            part = self._of_site(i, use, factor, core)
            total = part if total is None else total + part
        if total is None:
            return {}
        return dict(zip(("count", "first", "second"), total.unbind(-1), strict=True))

    def _of_site(self, i: int, use: Use, factor: Factor, core: Core) -> Tensor:  # (R, G, 3)
        grid = elements(use, factor, core)
        x = _data(use, factor.fn, finite(factor, core)).to(factor.weight)
        if _is_centred(use):
            x = x - self.centres[i].to(x)
        elif "loc" not in use.maps:
            x = x - _normal(core).loc
        factors: Tensor | None = None if core.mask is None else core.mask.to(x)
        if _scale(use) is None:
            precision = unexpanded(_normal(core).scale).to(x) ** -2
            factors = precision if factors is None else factors * precision
        weighted = x if factors is None else x * factors
        cells = padded(self.cells[i], len(grid.shape))
        count = grid.sum(factors, cells.shape)
        first = grid.sum(weighted, cells.shape)
        second = grid.sum(weighted * x, cells.shape)
        # from the centre of the site to that of the group, which several sites may have in common
        step = spread_over(self.centres[i], cells) - self.centre[cells]
        moved = torch.stack(
            [count, first + step * count, second + 2 * step * first + step**2 * count], -1
        )
        return scatter(moved, cells, len(self.loc))

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """Means at the scales so far, then scales at the new means."""
        count, first, second = (statistics[n] for n in ("count", "first", "second"))
        if bool((self.locs >= 0).any()):
            self._locs(count, first, update)
        known = self.locs[self.loc] < 0
        step = torch.where(known, 0.0, update.flat[:, self.locs[self.loc]] - self.centre)
        spread = second - 2 * step * first + step**2 * count
        self._scales(count, second + step**2 * count, spread, update)

    def raise_to_floor(self, update: Update) -> None:
        """Give variances below the floor the floor."""
        for entry, form in zip(self.scales.tolist(), self.forms, strict=True):
            if form is not None:
                given = update.flat[:, entry]
                raised = form.of_scale(torch.full_like(given, update.floor).sqrt())
                low = form.to_variance(given) < update.floor
                update.write(torch.tensor([entry]), torch.where(low, raised, given)[:, None])

    def _locs(self, count: Tensor, first: Tensor, update: Update) -> None:
        precision = self._precisions(update)[:, self.scale]
        base = _summed(torch.ones_like(self.centre)[None], self.loc, len(self.locs))
        around = _summed(self.centre[None], self.loc, len(self.locs)) / base
        moved = first + (self.centre - around[:, self.loc]) * count
        above = _summed(precision * moved, self.loc, len(self.locs))
        below = _summed(precision * count, self.loc, len(self.locs))
        weight = _summed(count, self.loc, len(self.locs))
        mine = self.locs >= 0
        empty = weight <= EMPTY * weight.amax(1, keepdim=True)
        complaints(
            self,
            update,
            empty[:, mine],
            self.locs[mine],
            "has no weight left in site {sites}. Start elsewhere, use fewer components, or a "
            "Normal prior (points=[...]).",
        )
        values = around + above / torch.where(empty, torch.ones_like(below), below)
        update.write(self.locs[mine], values[:, mine])

    def _form(self, entry: int) -> Form | None:
        """How a scale is given; None if it is known."""
        for use in self.uses:
            for name, form in SCALE_FORMS.items():
                if entry >= 0 and name in use.maps and bool((use.maps[name] == entry).any()):
                    return form
        return None

    def _precisions(self, update: Update) -> Tensor:  # (R, scales)
        """Of the scales so far; known ones are in the weights."""
        columns = [
            torch.ones_like(update.flat[:, 0])
            if form is None
            else 1 / form.to_variance(update.flat[:, entry])
            for entry, form in zip(self.scales.tolist(), self.forms, strict=True)
        ]
        return torch.stack(columns, 1)

    def _scales(self, count: Tensor, size: Tensor, spread: Tensor, update: Update) -> None:
        mine = self.scales >= 0
        if not bool(mine.any()):
            return
        weight = _summed(count, self.scale, len(self.scales))[:, mine]
        spread = _summed(spread, self.scale, len(self.scales))[:, mine]
        size = _summed(size, self.scale, len(self.scales))[:, mine]
        places = self.scales[mine]
        empty = weight <= EMPTY * weight.amax(1, keepdim=True)
        told = "has no weight left in site {sites}. Start elsewhere, or use fewer components."
        complaints(self, update, empty, places, told)
        safe = torch.where(empty, torch.ones_like(weight), weight)
        variance = spread / safe
        singular = ~empty & (spread <= 8 * self.entries.eps * size)
        if update.floor > 0:
            variance = variance.clamp(min=update.floor)
        else:
            complaints(
                self,
                update,
                singular,
                places,
                "is zero: what is left in site {sites} does not vary. Start elsewhere, use fewer "
                "components, or set a smallest variance (floor=...).",
            )
        scale = variance.clamp(min=0).sqrt()
        forms = [form for form in self.forms if form is not None]
        values = [form.of_scale(scale[:, i]) for i, form in enumerate(forms)]
        update.write(places, torch.stack(values, 1))


def _normal(core: Core) -> Any:
    fn = core.fn
    return fn.base_dist if isinstance(fn, torch.distributions.LogNormal) else fn


def _data(use: Use, fn: Any, value: Tensor) -> Tensor:
    """What is normal around the mean: for a prior, which is symmetric, its mean."""
    if use.prior:
        return unexpanded(_normal(core_of(fn)).loc)
    return value.log() if use.family == "LogNormal" else value


def _scale(use: Use) -> Tensor | None:
    return next((use.maps[name] for name in SCALE_FORMS if name in use.maps), None)


def _is_centred(use: Use) -> bool:
    return "loc" in use.maps or use.prior


def _summed(
    x: Tensor,  # (R, G)
    places: Tensor,  # (G,)
    count: int,
) -> Tensor:  # (R, count)
    return x.new_zeros(len(x), count).index_add(1, places, x)
