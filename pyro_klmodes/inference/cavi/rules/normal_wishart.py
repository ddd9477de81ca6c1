"""A vector and the matrix that its precision is in units of."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides.block_families import NormalWishart
from pyro_klmodes.inference.cavi.rules.base import JointRule, Nodes, Params, blended
from pyro_klmodes.inference.cavi.rules.cubature import simplex
from pyro_klmodes.inference.cavi.rules.tree import summed
from pyro_klmodes.inference.cavi.rules.wishart import WishartRule

__all__ = ["NormalWishartRule"]


class NormalWishartRule(JointRule):
    r"""Nodes ``L_s`` of the Wishart, and ``mu = loc + (strength L_s)^(-1/2) x_r`` for each of them.

    x_r are the corners of a simplex. A function affine in the statistics
    ``(log det L, L, L mu, mu' L mu)`` is, around the location,

    .. math:: f = c_1 \log\det L + \langle C, L \rangle + g^T L v + k \, v^T L v / 2,
              \qquad v = \mu - loc .

    Its slope in mu is ``L (g + k v)``, whose inner product with v has the mean ``k D / strength``;
    its slope in L has the mean :math:`(c_1 + k / (2\,strength)) L^{-1} + C` over x.

    Args:
        family: with the names of the sites.
    """

    def __init__(self, family: NormalWishart) -> None:
        self.matrix, self.vector = family.matrix.name, family.vector.name
        self.sites = family.sites
        self.wishart = WishartRule(NormalWishart.family)
        self.x = simplex(family.vector.event_shape[0])

    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Two matrices, each for all nodes of the vector, and those."""
        own, of_matrix = params[self.vector], params[self.matrix]
        both = self.wishart.points(of_matrix)
        # L = F diag(1 +- delta, 1, ..., 1) F', so that F'^-1 diag(...)^(-1/2) is a root of L^-1
        df, tril = of_matrix["df"], of_matrix["scale_tril"]
        size = tril.shape[-1]
        delta = self.wishart.delta(df, size)
        x = self.x.to(tril)
        first = torch.stack([1 + delta, 1 - delta]).rsqrt()
        entries = [first, *[torch.ones_like(first)] * (size - 1)]
        root = torch.stack(entries, -1).unsqueeze(-1) * x.mT  # (2, *members, D, S)
        root = torch.linalg.solve_triangular(tril.mT, root, upper=True)
        root = root / df.sqrt()[..., None, None]
        strength = own["strength"][..., None]
        ones = [1] * (strength.dim() + 2 - root.dim())
        root = root.reshape(2, *ones, *root.shape[1:])
        # (2, *members, D, S) -> (2, S, *members, D)
        spread = root.movedim(-1, 1) / strength.sqrt()
        vectors = (own["loc"] + spread).flatten(0, 1)
        return {self.matrix: both.repeat_interleave(len(x), 0), self.vector: vectors}

    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """All points, with equal weights."""
        count = 2 * len(self.x)
        weights = points[self.vector].new_full((count,), 1 / count)
        return {name: Nodes(points[name], weights) for name in self.sites}

    def step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
    ) -> dict[str, dict[str, Tensor]]:
        """See the class; not a number where nothing determines a site."""
        own, of_matrix = params[self.vector], params[self.matrix]
        strength, df, each = own["strength"], of_matrix["df"], len(self.x)
        size = self.x.shape[-1]
        slope, matrix = gradients[self.vector], points[self.matrix]
        ones = [1] * (slope.dim() + 1 - matrix.dim())
        wide = matrix.reshape(len(matrix), *ones, *matrix.shape[1:])
        mean = torch.linalg.solve(wide, slope.unsqueeze(-1)).squeeze(-1).sum(0)
        inner = (slope * (points[self.vector] - own["loc"])).sum((0, -1))
        curvature = strength / size * inner

        of_two = gradients[self.matrix]
        of_two = of_two.reshape(2, each, *of_two.shape[1:]).sum(1)
        power, linear = self.wishart.coefficients(of_matrix, matrix[::each], of_two)
        power = power - summed(0.5 * curvature / strength, df, 0)

        new = (1 - rho) * strength - rho * curvature
        tightest = 16 * torch.finfo(new.dtype).eps * strength
        new = new.masked_fill(new <= tightest, math.nan)
        moved = rho * mean / new[..., None]
        # the vectors have half of a log-determinant each
        halves = summed(torch.full_like(strength, 0.5), df, 0)
        now = self.wishart.family.natural(of_matrix)
        blend = blended((now[0] + halves, now[1]), (power, linear), rho)
        outer = new[..., None, None] * moved[..., :, None] * moved[..., None, :]
        natural = (blend[0] - halves, blend[1] + 0.5 * summed(outer, blend[1], 2))
        found = dict(self.wishart.family.from_natural(natural))
        found["df"] = found["df"].masked_fill(found["df"] <= size - 1, math.nan)
        return {
            self.matrix: found,
            self.vector: {"loc": own["loc"] + moved, "strength": new},
        }

    def entropy(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Of the matrix, and of the vector given it."""
        own, size = params[self.vector], self.x.shape[-1]
        mean_log_det, _ = self.wishart.family.mean_parameters(params[self.matrix])
        constant = math.log(2 * math.pi * math.e)
        of_vector = 0.5 * (size * (constant - own["strength"].log()) - mean_log_det)
        return {self.matrix: self.wishart.entropy(params[self.matrix]), self.vector: of_vector}
