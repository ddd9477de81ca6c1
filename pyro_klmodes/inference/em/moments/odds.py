"""Maxima that are ratios of two sums: probabilities, rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
from pyro_klmodes.inference.em.moments.uses import Use

__all__ = ["Odds"]


class Odds(Block):
    r"""Probabilities :math:`p = a / (a + b)` and rates :math:`\lambda = a / b`.

    The expected log-likelihood of a probability is :math:`a \log p + b \log(1 - p)`, of a rate
    :math:`a \log \lambda - b \lambda`, whatever the family, and that of a conjugate prior has the
    same form; a and b are sums over all sites:

    ============ ============ =========
    family       a            b
    ============ ============ =========
    Bernoulli    x            1 - x
    Binomial     x            n - x
    Geometric    1            x
    Beta prior   alpha - 1    beta - 1
    Poisson      x            1
    Exponential  1            x
    Gamma        alpha        x
    Gamma prior  alpha - 1    beta
    Exp. prior   0            beta
    ============ ============ =========

    Source: Bishop (2006), section 2.4.
    """

    def __init__(self, key: str, uses: list[Use], entries: Entries) -> None:
        super().__init__(key, uses, entries)
        maps = [next(iter(u.maps.values())) for u in uses]
        self.places, inverse = torch.cat([m.flatten() for m in maps]).unique(return_inverse=True)
        parts = inverse.split([m.numel() for m in maps])
        self.cells = [part.reshape(m.shape) for part, m in zip(parts, maps, strict=True)]

    def sufficient(
        self, factors: Mapping[str, Factor]
    ) -> dict[str, Tensor]:  # {a, b: (R, entries)}
        """The two sums."""
        found: dict[str, Tensor] = {}
        for i, use, factor, core in self.present(factors):
            grid = elements(use, factor, core)
            for name, part in zip("ab", _parts(use, factor, core), strict=True):
                if part is None:
                    continue
                statistic = part if core.mask is None else part * core.mask
                total = grid.add_up(statistic, self.cells[i], len(self.places))
                found[name] = found[name] + total if name in found else total
        if found:
            some = next(iter(found.values()))
            found = {name: found.get(name, torch.zeros_like(some)) for name in "ab"}
        return found

    def maximise(self, statistics: Mapping[str, Tensor], update: Update) -> None:
        """The ratios."""
        a, b = statistics["a"], statistics["b"]
        size = (a + b if self.key == "probability" else b).abs()
        total = a + b if self.key == "probability" else b
        empty = size <= EMPTY * size.amax(1, keepdim=True)
        told = "has no weight left in site {sites}. Start elsewhere, use fewer components, or a "
        complaints(self, update, empty, self.places, told + "prior (points=[...]).")
        short = ~empty & ((a < 0) | (b < 0))
        complaints(
            self,
            update,
            short,
            self.places,
            "has no posterior mode: the prior among sites {sites} has a concentration below one, "
            "which is more than the data make up for. Use a concentration of at least one.",
        )
        update.write(self.places, a / torch.where(empty, torch.ones_like(total), total))


def _parts(use: Use, factor: Factor, core: Core) -> tuple[Tensor | None, Tensor | None]:
    """What a and b add up, element by element."""
    fn: Any = core.fn
    one = factor.weight.new_ones(())
    if use.prior:
        if use.family == "Beta":
            return unexpanded(fn.concentration1) - 1, unexpanded(fn.concentration0) - 1
        if use.family == "Gamma":
            return unexpanded(fn.concentration) - 1, unexpanded(fn.rate)
        return None, unexpanded(fn.rate)
    x = finite(factor, core).to(one)
    if use.family == "Binomial":
        return x, unexpanded(fn.total_count).to(one) - x
    parts: dict[str, tuple[Tensor, Tensor]] = {
        "Bernoulli": (x, 1 - x),
        "Geometric": (one, x),
        "Poisson": (x, one),
        "Exponential": (one, x),
    }
    return parts[use.family] if use.family in parts else (unexpanded(fn.concentration), x)
