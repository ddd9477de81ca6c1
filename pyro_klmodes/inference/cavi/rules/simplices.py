"""Betas and Dirichlets: two nodes on the simplex with the right mean logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import Beta, Dirichlet
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params, Rule, blended

__all__ = ["BetaRule", "DirichletRule"]


def _split(
    total: Tensor,  # (*shape)
    first: Tensor,  # (*shape), mean logarithm of one part
    second: Tensor,  # (*shape), of the other
) -> tuple[Tensor, Tensor]:  # (2, *shape) of one part, and of the other
    """Two ways to split a total in two parts, with given mean logarithms of both parts.

    The parts x and t - x fulfil ``x_1 x_2 = e^(2 m)`` and ``(t - x_1)(t - x_2) = e^(2 n)``: the
    roots of a quadratic, whose discriminant is a product of four positive factors.
    """
    p, q = first.exp(), second.exp()
    tiny = torch.finfo(total.dtype).eps * total
    room = (total - p - q).clamp(min=tiny)
    root = (room * (total - p + q) * (total + p - q) * (total + p + q)).sqrt() / total
    middle_p = (total + (p - q) * (p + q) / total) / 2
    middle_q = (total - (p - q) * (p + q) / total) / 2
    low_p, low_q = p * p / (middle_p + root / 2), q * q / (middle_q + root / 2)
    return (
        torch.stack([middle_p + root / 2, low_p]),
        torch.stack([low_q, middle_q + root / 2]),
    )


class BetaRule(Rule):
    """The two nodes of a Beta; ``f = c_1 log x + c_2 log(1 - x)`` has a slope at each of them."""

    def __init__(self, family: Beta) -> None:
        self.family = family

    def points(self, params: Params) -> Tensor:
        """Both nodes, ``(2, *shape)``."""
        first, second = self.family.mean_parameters(params)
        return _split(torch.ones_like(first), first, second)[0]

    def nodes(self, points: Tensor) -> Nodes:
        """Two with equal weights."""
        return Nodes(points, points.new_full((2,), 0.5))

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """From ``x (1 - x) f' = c_1 (1 - x) - c_2 x`` at two x."""
        (xa, xb), (fa, fb) = points, 2 * gradient
        # x (1 - x) f' = c_1 (1 - x) - c_2 x, which is linear in x
        ya, yb = xa * (1 - xa) * fa, xb * (1 - xb) * fb
        slope = (ya - yb) / (xa - xb)
        middle = 0.5 * (ya + yb - slope * (xa + xb))
        natural = blended(self.family.natural(params), (middle, -slope - middle), rho)
        return dict(self.family.from_natural(natural))


class DirichletRule(Rule):
    """Two nodes of a Dirichlet, which differ in the two largest entries only.

    The others are ``exp(E[log x_i])``. A function on the simplex has gradients up to a constant
    vector, ``x_i f_i = c_i - mu x_i``; both constants follow from sums over i and from one of the
    two entries that differ.
    """

    def __init__(self, family: Dirichlet) -> None:
        self.family = family

    def points(self, params: Params) -> Tensor:
        """Both nodes, ``(2, *shape)``."""
        (mean,) = self.family.mean_parameters(params)
        pair = self._pair(mean)
        both = mean.gather(-1, pair)
        others = mean.exp().scatter(-1, pair, 0.0)
        one, other = _split(1 - others.sum(-1), both[..., 0], both[..., 1])
        differ = torch.stack([one, other], -1)  # (2, *members, 2)
        return torch.stack([others.scatter(-1, pair, part) for part in differ])

    def nodes(self, points: Tensor) -> Nodes:
        """Two with equal weights."""
        return Nodes(points, points.new_full((2,), 0.5))

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """From ``x_i f_i = c_i - mu x_i`` at two x."""
        (mean,) = self.family.mean_parameters(params)
        pair = self._pair(mean)
        (xa, xb), (ya, yb) = points, 2 * gradient * points
        gap = ya.sum(-1) - yb.sum(-1)  # of the constants: that of b minus that of a
        at = pair[..., :1]
        xa1, xb1, ya1, yb1 = (v.gather(-1, at).squeeze(-1) for v in (xa, xb, ya, yb))
        of_a = (ya1 - yb1 - gap * xb1) / (xb1 - xa1)
        first = ya + of_a.unsqueeze(-1) * xa
        second = yb + (of_a + gap).unsqueeze(-1) * xb
        natural = blended(self.family.natural(params), (0.5 * (first + second),), rho)
        return dict(self.family.from_natural(natural))

    @staticmethod
    def _pair(mean: Tensor) -> Tensor:  # (*members, 2)
        return mean.detach().topk(2, dim=-1).indices
