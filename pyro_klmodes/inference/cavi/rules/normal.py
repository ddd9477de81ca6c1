"""Normals in unconstrained space: entry by entry, or entries that meet in a term as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_klmodes.guides.site_families import MultivariateNormal, Normal
from pyro_klmodes.guides.site_families.unconstrained import bijection
from pyro_klmodes.inference.cavi.rules.base import Nodes, Params, Rule
from pyro_klmodes.inference.cavi.rules.cubature import gauss_hermite, quasi_random, simplex

__all__ = ["NormalRule", "normal_nodes", "precision_factor"]

#: Gauss-Hermite points for one entry; and how many nodes a vector may have
_ORDER, _MOST = 20, 512


def normal_nodes(
    dim: int,
    *,
    quadratic: bool,
) -> tuple[Tensor, Tensor]:  # (S, dim), (S,)
    """Nodes of a standard normal for quadratic terms, where few are exact, or for any others."""
    if quadratic:
        x = simplex(dim)
        return x, x.new_full((len(x),), 1 / len(x))
    order = min(_ORDER, math.floor(_MOST ** (1 / dim) + 1e-9))
    if order >= 8:
        return gauss_hermite(dim, order)
    x = quasi_random(dim, max(_MOST, 8 * dim))
    return x, x.new_full((len(x),), 1 / len(x))


class NormalRule(Rule):
    r"""Nodes ``u_s = loc + scale x_s``, and the step from gradients at them.

    For the mean gradient g and the mean Hessian H of the expected log-joint in u, which follow
    from the gradients at the nodes by Stein's identity,
    :math:`H = \sum_s w_s \nabla f(u_s) x_s^T / \sigma`, the step is

    .. math:: P' = (1 - \rho) P - \rho H, \quad m' = m + \rho P'^{-1} g .

    A full covariance takes the inverse of ``P'``; independent entries take the inverse of its
    diagonal. For a quadratic and rho = 1 this is the joint maximum over all entries.

    Args:
        family: ``Normal``, ``LogNormal`` or ``MultivariateNormal``.
        support: of the site.
        batch_dim: number of its batch dimensions.
        shape: of one unconstrained value, minibatches at their size.
        together: the dimensions of ``shape`` whose entries meet in a term.
        quadratic: whether the expected log-joint is quadratic in u.

    Source: Khan and Lin (2017); Opper and Archambeau (2009) for the gradients.
    """

    def __init__(
        self,
        family: Normal | MultivariateNormal,
        support: Any,
        batch_dim: int,
        shape: torch.Size,
        together: Sequence[int],
        *,
        quadratic: bool,
    ) -> None:
        self.family = family
        self.full = isinstance(family, MultivariateNormal)
        self.transform = bijection(support)
        self.batch_dim, self.shape = batch_dim, shape
        self.together = (len(shape) - 1,) if self.full else tuple(sorted(together))
        self.apart = [d for d in range(len(shape)) if d not in self.together]
        self.dim = math.prod(shape[d] for d in self.together)
        self.ascends = quadratic
        self.x, self.w = normal_nodes(self.dim, quadratic=quadratic)

    def points(self, params: Params) -> Tensor:
        """Unconstrained values, ``(S, *shape)``."""
        loc = params["loc"]
        x = self.x.to(loc)
        if self.full:
            spread = torch.einsum("...ij,sj->s...i", params["scale_tril"], x)
            return loc + spread
        sizes = [self.shape[d] if d in self.together else 1 for d in range(len(self.shape))]
        return loc + params["scale"] * x.reshape(len(x), *sizes)

    def nodes(self, points: Tensor) -> Nodes:
        """Constrained values with their Jacobian."""
        value = self.transform(points)
        log_det = self.transform.log_abs_det_jacobian(points, value)
        log_det = sum_rightmost(log_det, log_det.dim() - 1 - self.batch_dim)
        return Nodes(value, self.w.to(points), log_det)

    def step(
        self, params: Params, points: Tensor, gradient: Tensor, rho: float
    ) -> dict[str, Tensor]:
        """See the class; not a number where nothing determines the site."""
        g = self._vectors(gradient.sum(0))  # (*rest, D)
        weighted = torch.stack([self._vectors(part) for part in gradient])
        moment = torch.einsum("s...i,sj->...ij", weighted, self.x.to(gradient))
        if self.full:
            tril = params["scale_tril"]
            hessian = torch.linalg.solve_triangular(tril, moment, upper=False, left=False)
            old = torch.cholesky_inverse(tril)
        else:
            scale = self._vectors(params["scale"])
            hessian = moment / scale.unsqueeze(-2)
            old = scale.pow(-2).diag_embed()
        target = -0.5 * (hessian + hessian.mT)
        if not self.ascends:
            target = _positive(target, old)
        precision = target if rho == 1 else (1 - rho) * old + rho * target
        factor = precision_factor(precision, old)
        move = rho * torch.cholesky_solve(g.unsqueeze(-1), factor).squeeze(-1)
        loc = params["loc"] + self._back(move)
        if self.full:
            covariance = torch.cholesky_inverse(factor)
            return {"loc": loc, "scale_tril": torch.linalg.cholesky_ex(covariance).L}
        diagonal = factor.square().sum(-1)
        return {"loc": loc, "scale": self._back(diagonal.rsqrt())}

    def entropy(self, params: Params) -> Tensor:
        """``log sd + log(2 pi e) / 2`` for every entry; for every vector of a full covariance."""
        if self.full:
            log_sd = params["scale_tril"].diagonal(dim1=-2, dim2=-1).log().sum(-1)
            return log_sd + 0.5 * self.dim * math.log(2 * math.pi * math.e)
        return params["scale"].log() + 0.5 * math.log(2 * math.pi * math.e)

    def _vectors(
        self,
        value: Tensor,  # (*shape)
    ) -> Tensor:  # (*rest, D)
        rest = [self.shape[d] for d in self.apart]
        return value.permute([*self.apart, *self.together]).reshape(*rest, self.dim)

    def _back(
        self,
        vectors: Tensor,  # (*rest, D)
    ) -> Tensor:  # (*shape)
        order = [*self.apart, *self.together]
        sizes = [self.shape[d] for d in order]
        return vectors.reshape(sizes).permute([order.index(d) for d in range(len(order))])


def precision_factor(
    precision: Tensor,  # (*rest, D, D), symmetric
    old: Tensor,  # (*rest, D, D)
) -> Tensor:  # (*rest, D, D)
    """The Cholesky factor; not a number where nothing determines the site."""
    factor, problem = torch.linalg.cholesky_ex(precision)
    least = 16 * torch.finfo(precision.dtype).eps * old.diagonal(dim1=-2, dim2=-1)
    flat = (precision.diagonal(dim1=-2, dim2=-1) <= least).any(-1) | (problem > 0)
    return factor.masked_fill(flat[..., None, None], math.nan)


def _positive(
    precision: Tensor,  # (*rest, D, D), symmetric
    old: Tensor,  # (*rest, D, D)
) -> Tensor:
    """Where the log-joint is not concave on average, curvatures of the same size, and positive."""
    floor = 1e-3 * old.diagonal(dim1=-2, dim2=-1)
    if precision.shape[-1] == 1:
        return torch.where(
            precision <= 0, torch.maximum(-precision, floor.unsqueeze(-1)), precision
        )
    problem = torch.linalg.cholesky_ex(precision).info > 0
    if not bool(problem.any()):
        return precision
    values, vectors = torch.linalg.eigh(precision)
    values = torch.maximum(values.abs(), floor.amin(-1, keepdim=True))
    fixed = (vectors * values.unsqueeze(-2)) @ vectors.mT
    return torch.where(problem[..., None, None], fixed, precision)
