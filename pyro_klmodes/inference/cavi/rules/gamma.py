"""Gammas: two nodes with the right mean and the right mean logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import Gamma
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params, Rule, blended

__all__ = ["GammaRule", "digamma_minus_log"]

#: from here on the asymptotic series is accurate in double precision
_LARGE = 15.0


def digamma_minus_log(a: Tensor) -> Tensor:
    """``digamma(a) - log(a)`` without cancellation for large a, twice differentiable.

    Example:
        >>> a = torch.tensor([1.0, 1e9], dtype=torch.float64)
        >>> digamma_minus_log(a)[1] * -2e9
        tensor(1.0000, dtype=torch.float64)
    """
    large = a.clamp(min=_LARGE)
    r = 1 / (large * large)
    tail = 1 / 240 - r * (1 / 132 - r * (691 / 32760 - r / 12))
    series = -0.5 / large - r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * tail)))
    small = a.clamp(max=_LARGE)
    return torch.where(a < _LARGE, small.digamma() - small.log(), series)


class GammaRule(Rule):
    r"""Nodes :math:`\frac{a}{b} (1 \pm \delta)`, :math:`\delta^2 = 1 - e^{2 (\psi(a) - \log a)}`.

    ``f = c_1 log x + c_2 x`` has the slope ``c_1 / x + c_2``, from which both follow.
    """

    def __init__(self, family: Gamma) -> None:
        self.family = family

    def points(self, params: Params) -> Tensor:
        """Both nodes, ``(2, *shape)``."""
        a, b = params["concentration"], params["rate"]
        delta = (-torch.expm1(2 * digamma_minus_log(a))).sqrt()
        return a / b * torch.stack([1 + delta, 1 - delta])

    def nodes(self, points: Tensor) -> Nodes:
        """Two with equal weights."""
        return Nodes(points, points.new_full((2,), 0.5))

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """From ``c_1 / x + c_2`` at two x."""
        natural = blended(self.family.natural(params), self.coefficients(points, gradient), rho)
        return dict(self.family.from_natural(natural))

    @staticmethod
    def coefficients(
        points: Tensor,  # (2, *shape)
        gradient: Tensor,  # (2, *shape), of the mean of both values
    ) -> tuple[Tensor, Tensor]:
        """``c_1`` and ``c_2``."""
        (xa, xb), (fa, fb) = points, 2 * gradient
        first = (fa - fb) * xa * xb / (xb - xa)
        return first, 0.5 * (fa + fb) - 0.5 * first * (1 / xa + 1 / xb)
