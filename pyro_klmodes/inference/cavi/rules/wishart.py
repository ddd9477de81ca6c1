"""Wisharts: two nodes with the right mean and the right mean log-determinant."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.site_families import Wishart
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params, Rule, blended
from pyro_klmodes.inference.cavi.rules.gamma import digamma_minus_log

__all__ = ["WishartRule"]


class WishartRule(Rule):
    r"""Nodes :math:`C \mathrm{diag}(1 \pm \delta, 1, \ldots, 1) C^T` with :math:`C C^T = E[X]`.

    The mean log-determinant gives
    :math:`\log(1 - \delta^2) = 2 (E[\log \det X] - \log \det E[X])`. A function
    ``f = c log det X + <C, X>`` has the gradient ``c X^{-1} + C``.
    """

    def __init__(self, family: Wishart) -> None:
        self.family = family

    def points(self, params: Params) -> Tensor:
        """Both nodes, ``(2, *shape)``."""
        df, tril = params["df"], params["scale_tril"]
        delta = self.delta(df, tril.shape[-1])
        factor = df.sqrt()[..., None, None] * tril
        first = factor[..., :1] @ factor[..., :1].mT * delta[..., None, None]
        mean = factor @ factor.mT
        return torch.stack([mean + first, mean - first])

    def nodes(self, points: Tensor) -> Nodes:
        """Two with equal weights."""
        return Nodes(points, points.new_full((2,), 0.5))

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """From ``c X^{-1} + C`` at two X."""
        natural = blended(
            self.family.natural(params), self.coefficients(params, points, gradient), rho
        )
        return dict(self.family.from_natural(natural))

    def coefficients(
        self,
        params: Params,
        points: Tensor,  # (2, *shape)
        gradient: Tensor,  # (2, *shape), of the mean of both values
    ) -> tuple[Tensor, Tensor]:
        """``c`` and ``C``."""
        slopes = gradient + gradient.mT  # twice the symmetric part, as weights are one half
        factor = params["df"].sqrt()[..., None, None] * params["scale_tril"]
        column = factor[..., :1]
        delta = self.delta(params["df"], factor.shape[-1])
        # in the direction that differs: C'(f_a - f_b)C = c (1/(1 + delta) - 1/(1 - delta))
        change = (column.mT @ (slopes[0] - slopes[1]) @ column)[..., 0, 0]
        power = change * (1 - delta**2) / (-2 * delta)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(points))
        return power, (slopes - power[..., None, None] * inverse).mean(0)

    @staticmethod
    def delta(
        df: Tensor,  # (*members)
        size: int,
    ) -> Tensor:  # (*members)
        """Half the relative distance of the nodes in the direction in which they differ."""
        order = torch.arange(size, dtype=df.dtype, device=df.device)
        halves = (df.unsqueeze(-1) - order) / 2
        gap = (digamma_minus_log(halves) + torch.log1p(-order / df.unsqueeze(-1))).sum(-1)
        return (-torch.expm1(2 * gap)).sqrt()
