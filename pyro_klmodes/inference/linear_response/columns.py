"""Covariances of a few sites, one solution of ``H x = b`` for every entry of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_klmodes.inference.linear_response.conjugate_gradients import conjugate_gradients
from pyro_klmodes.inference.linear_response.curvature import Curvature
from pyro_klmodes.inference.linear_response.factors import SiteFactors
from pyro_klmodes.inference.linear_response.layout import Layout

__all__ = ["Columns"]


class Columns:
    """The covariance of the means of some sites, by conjugate gradients.

    Args:
        curvature: products with H.
        layout: of the coordinates, all of them global.
        names: the sites.
        least: curvature below which a direction counts as flat.

    Raises:
        NotPositive: if H is found not to be positive definite.
    """

    def __init__(
        self, curvature: Curvature, layout: Layout, names: Sequence[str], *, least: float
    ) -> None:
        self.curvature, self.layout, self.flat = curvature, layout, least
        self.least = float("nan")  # the least eigenvalue is not known
        slopes = torch.cat([self._wide(name) for name in names])  # (R, P)
        solved = torch.stack([self._solve(row) for row in slopes])
        product = slopes @ solved.mT
        values, vectors = torch.linalg.eigh(0.5 * (product + product.mT))
        root = vectors * values.clamp(min=0.0).sqrt()
        sizes = [layout.rows(name).numel() for name in names]
        self._roots = dict(zip(names, root.split(sizes), strict=True))
        self._slopes = dict(zip(names, slopes.split(sizes), strict=True))

    def factors(self, name: str) -> SiteFactors:
        """The covariance of a site's means."""
        absent = self.layout.sites[name].absent_entries()
        return SiteFactors(self._roots[name], None, self.layout.rows(name), absent)

    def newton_step(
        self,
        gradient: Tensor,  # (P,)
    ) -> tuple[Callable[[str], Tensor], float]:
        """How far a Newton step moves the means of a site, and twice what the ELBO gains by it."""
        step = self._solve(gradient)
        return lambda name: self._slopes[name] @ step, float(gradient @ step)

    def _wide(self, name: str) -> Tensor:  # (entries, P)
        slopes = self.layout.slopes(name)
        begin = self.layout.offsets[name]
        wide = slopes.new_zeros(len(slopes), self.layout.size)
        wide[:, begin : begin + slopes.shape[1]] = slopes
        return wide

    def _solve(self, b: Tensor) -> Tensor:
        return conjugate_gradients(self.curvature, b, least=self.flat)
