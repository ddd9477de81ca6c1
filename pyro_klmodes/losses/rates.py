"""Losses whose rate, the divergence of the guide from the prior, has a price of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes import objectives
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.estimators.base import value_of, with_gradient
from pyro_klmodes.losses.base import DivergenceLoss, on_draws
from pyro_klmodes.losses.schedules import Schedule, checked_schedule, value_at
from pyro_klmodes.objectives import Objective
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.handlers import Cut
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Pair

__all__ = ["RateLoss"]

Estimate = Callable[[Objective, Draws], Tensor]


class RateLoss(DivergenceLoss):
    r"""A divergence L plus what a rate costs other than one,

    .. math:: L + \sum_j \big[ \beta \max(\lambda N_j, R_j) - R_j \big],
        \qquad R_j = E_q[\log q(z_j) - \log p(z_j)],

    summed over the latent sites of the guide, with :math:`N_j` the number of elements of a site (of
    data, for a local one). The estimator of the loss differentiates the rates too. With ``beta=1``
    and ``free_bits=0`` nothing is added or computed.

    Args:
        objective: L.
        beta: the price of a rate: a number, or a schedule (``pyro_klmodes.losses.schedules``).
        free_bits: lambda, in nats for each latent site and element of its plates: below it the rate
            has no price and no gradient.
        **kwargs: those of ``DivergenceLoss``.

    Raises:
        InvalidArgument: for a negative or infinite ``beta`` or ``free_bits``.
    """

    def __init__(
        self, objective: Objective, *, beta: Schedule, free_bits: float, **kwargs: Any
    ) -> None:
        super().__init__(objective, **kwargs)
        self.beta = checked_schedule("beta", beta)
        if isinstance(free_bits, bool) or not isinstance(free_bits, int | float):
            raise InvalidArgument(f"free_bits={free_bits!r} must be a number, in nats.")
        if not 0.0 <= free_bits < math.inf:
            raise InvalidArgument(
                f"free_bits={free_bits!r} must be a finite number of nats and not negative."
            )
        self.free_bits = float(free_bits)

    @property
    def prices_rates(self) -> bool:
        """Whether a rate may cost anything but one."""
        return callable(self.beta) or self.beta != 1.0 or self.free_bits > 0.0

    def dials(self, step: int) -> dict[str, float]:
        """The price of a rate, if it has a schedule."""
        return {"beta": self._price(step)} if callable(self.beta) else {}

    def _needs_sites(self, layout: Layout) -> bool:
        return self.prices_rates or super()._needs_sites(layout)

    def _draws(self, pair: Pair, layout: Layout, cut: Cut) -> Draws:
        if self.prices_rates and layout.partial_plates and self._can_nest(layout):
            raise UnsupportedStructure(
                f"subsampled plate '{layout.partial_plates[0]}' does not enclose every latent "
                f"site, so {type(self).__name__} nests its weights, and beta and free_bits have no "
                "meaning for them. Use ReverseKL, or the full data in that plate."
            )
        return super()._draws(pair, layout, cut)

    def _value(self, draws: Draws, layout: Layout) -> Tensor:
        loss = super()._value(draws, layout)
        return self._priced(loss, draws, self._estimator(layout).value)

    def _surrogate(self, draws: Draws, layout: Layout) -> Tensor:
        loss = super()._surrogate(draws, layout)
        return self._priced(loss, draws, self._estimator(layout).loss)

    def _price(self, step: int) -> float:
        """The price of a rate at a step."""
        return value_at(self.beta, step, "beta")

    def _priced(self, loss: Tensor, draws: Draws, estimate: Estimate) -> Tensor:
        """The loss with the price of the rates; ``estimate`` gives an objective from draws."""
        if not self.prices_rates:
            return loss
        dialled = self._dialled.get("beta")
        beta = self._price(self.step) if dialled is None else dialled.to(loss.dtype)
        if self.free_bits > 0.0:
            total = loss + self._with_floor(draws, beta, estimate)
        elif isinstance(beta, Tensor) or beta != 1.0:
            total = loss + (beta - 1.0) * _rate(draws, list(draws.sites), estimate)
        else:
            total = loss
        # an infinite rate is infinite at any price, but infinity less infinity is no number
        return with_gradient(torch.where(loss.isfinite(), total, loss), total)

    def _with_floor(self, draws: Draws, beta: float | Tensor, estimate: Estimate) -> Tensor:
        """What is added to the loss where a rate below the floor costs as much as the floor."""
        added = draws.log_p.new_zeros(())
        for name, site in draws.sites.items():
            rate = _rate(draws, [name], estimate)
            floor = self.free_bits * site.elements
            with torch.no_grad():
                free = _rate(draws, [name], value_of) <= floor
            added = added + torch.where(free, beta * floor - rate, (beta - 1.0) * rate)
        return added


def _rate(draws: Draws, names: Collection[str], estimate: Estimate) -> Tensor:
    """The rate of some sites: the reverse divergence of guide and prior on the same draws."""
    only = draws.only(names)
    return estimate(on_draws(objectives.ReverseKL(), only), only)
