"""How far off the guide is in the linear combination of its parameters where it is worst."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.local_axes import LocalAxes
from pyro_klmodes.diagnosis.verdict import SHORT_IN_ERRORS, WorstShift
from pyro_klmodes.diagnostics import Combinations, combinations
from pyro_klmodes.names import element_name
from pyro_klmodes.numbers import short_number
from pyro_klmodes.tracing import Draws

__all__ = ["worst_combination"]

# More numbers than that are not put into one matrix.
MOST_NUMBERS = 500
# Of a combination's terms, those with a tenth of the largest one's spread, and three at most.
LEAST_TERM, MOST_TERMS = 0.1, 3
# Standard deviations, or the log of a ratio of them: less is nothing, and may be rounding.
LEAST_SHIFT = 0.005


def worst_combination(
    draws: Draws,
    values: Mapping[str, Tensor],  # {site: (S, *site_shape)}
) -> WorstShift | None:
    """The largest shift of a combination's mean, and ratio of its standard deviations.

    Combinations are of the numbers that share a weight: of all of them, or of those in one cell of
    the local plates, whose draws and posteriors are independent of those in other cells. What may
    be chance counts as zero: four standard errors. None where there is nothing to combine, or too
    much.
    """
    numbers = _Numbers.of(draws, values)
    if not 2 <= numbers.count <= MOST_NUMBERS or _weightless(draws.log_w):
        return None
    found = combinations(draws.log_w, numbers.values)
    means = _beyond_chance(found.shift.abs(), found.shift_error)
    ratios = _beyond_chance(found.sd_ratio.log(), found.sd_ratio_error / found.sd_ratio)
    if bool(means.isnan().any()) or bool(ratios.isnan().any()):
        return None
    mean_at, ratio_at = (int(x.reshape(-1).abs().argmax()) for x in (means, ratios))
    return WorstShift(
        mean=float(means.reshape(-1)[mean_at]),
        mean_at=numbers.name(found, mean_at),
        log_ratio=float(ratios.reshape(-1)[ratio_at]),
        sd_at=numbers.name(found, ratio_at),
    )


def _weightless(log_w: Tensor) -> bool:
    """Whether all weights of a cell are zero in one half of the draws."""
    return any(bool((log_w[half::2].amax(0) == -math.inf).any()) for half in range(2))


def _beyond_chance(x: Tensor, error: Tensor) -> Tensor:
    return torch.where(x.abs() <= (SHORT_IN_ERRORS * error).clamp(min=LEAST_SHIFT), 0.0, x)


@dataclass(frozen=True)
class _Numbers:
    """The numbers of all sites next to each other, the cells of the local plates in front.

    Attributes:
        values: ``(S, *cells, D)``.
        sites: the site of each number, ``D`` of them.
        places: its place among the elements of the site, ``(*cells, D)``.
        shapes: of every site.
    """

    values: Tensor
    sites: tuple[str, ...]
    places: Tensor
    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, draws: Draws, values: Mapping[str, Tensor]) -> _Numbers:
        axes = LocalAxes.of(draws, values)
        at = {s: torch.arange(x[0].numel()).reshape(x[:1].shape) for s, x in values.items()}
        cells = draws.log_w.shape[1:]

        def joined(by_site: Mapping[str, Tensor]) -> Tensor:  # (S, *cells, D)
            moved = axes.in_front(by_site).values()
            return torch.cat([x.reshape(len(x), *cells, -1).double() for x in moved], dim=-1)

        places = joined(at)[0].long()
        inside = {s: x[0].numel() // math.prod(cells) for s, x in values.items()}
        return cls(
            joined(values),
            tuple(site for site in axes.of_site for _ in range(inside[site])),
            places,
            {site: x.shape[1:] for site, x in values.items()},
        )

    @property
    def count(self) -> int:
        return len(self.sites)

    def name(
        self,
        found: Combinations,
        place: int,  # among the combinations of all cells
    ) -> str:
        """A combination in words, its largest term first: ``z[0] − 0.98 z[1]``."""
        coefficients = found.coefficients.reshape(-1, self.count)[place]
        cell = place % max(1, self.places[..., 0].numel())
        at = self.places.reshape(-1, self.count)[cell]
        spread = self.values.reshape(len(self.values), -1, self.count)[:, cell].std(0)
        terms = (coefficients * spread).abs()
        order = terms.argsort(descending=True).tolist()
        told = [j for j in order if terms[j] >= LEAST_TERM * terms[order[0]]]
        first, *others = told[:MOST_TERMS]
        words = self._number(first, at)
        for j in others:
            factor = float(coefficients[j] / coefficients[first])
            amount = short_number(abs(factor))
            times = "" if amount == "1.00" else f"{amount} "
            words += f" {'+' if factor > 0 else '−'} {times}{self._number(j, at)}"
        return words + " + ..." * (len(told) > MOST_TERMS)

    def _number(self, j: int, at: Tensor) -> str:
        site = self.sites[j]
        index = torch.unravel_index(at[j], self.shapes[site]) if self.shapes[site] else ()
        return element_name(site, tuple(int(i) for i in index))
