"""A covariance of low rank plus a diagonal, without a D x D matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.scale_base import (
    Scale,
    ScaleParameters,
    apply,
    as_columns,
    prefix_sums,
)
from pyro_klmodes.guides.joint.scale_full import FullScale

__all__ = ["LowRankParameters", "LowRankScale"]


class LowRankScale(Scale):
    """``S = W W' + diag(sd^2)`` with ``W = diag(sd) factor`` of rank r."""

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
        factor: Tensor,  # (*lead, D, r)
    ) -> None:
        self.sd = sd
        self.factor = factor
        self.noise_size = factor.shape[-2] + factor.shape[-1]

    def select(
        self,
        index: Tensor,  # (*shape) long
    ) -> LowRankScale:
        """The scales of these components."""
        return LowRankScale(self.sd[index], self.factor[index])

    def draw(
        self,
        noise: Tensor,  # (*batch, *lead, D + r)
    ) -> Tensor:  # (*batch, *lead, D)
        """The first D numbers move the coordinates one by one, the other r all of them."""
        own, common = noise.split(self.factor.shape[-2:], -1)
        return self.sd * (own + apply(self.factor, common))

    def marginal_sd(self) -> Tensor:  # (*lead, D)
        """Square roots of the diagonal of S."""
        return self.sd * (1 + self.factor.square().sum(-1)).sqrt()

    def prefixes(
        self,
        delta: Tensor,  # (*batch, *lead, D)
        ends: Sequence[int],
    ) -> tuple[Tensor, Tensor]:  # (*batch, *lead, len(ends)), (*lead, len(ends))
        """Block by block, in O(D r) for each vector and O(D r^2 + n r^3) for each component.

        Given the common factors z ~ N(0, I) the coordinates x = delta / sd are independent with
        means F z, so ``x'(I + F F')^{-1} x`` is the least value of ``|x - F z|^2 + |z|^2``, taken
        at the posterior mean m of z. A further block raises it by the block's own residuals at the
        new mean and by what the new mean is worse for the blocks before. These terms are all
        positive; Woodbury's identity subtracts large numbers instead, which in single precision
        leaves nothing where the factors are large.
        """
        last = ends[-1]
        sd, factor = self.sd[..., :last], self.factor[..., :last, :]
        x = delta[..., :last] / sd
        eye = torch.eye(factor.shape[-1], dtype=sd.dtype, device=sd.device)
        if len(ends) == 1:
            squared, factors = _one_block(x, factor, eye)
            return squared.unsqueeze(-1), (sd.log().sum(-1) + factors).unsqueeze(-1)

        grams = prefix_sums(torch.einsum("...da,...db->...abd", factor, factor), ends)
        roots = torch.linalg.cholesky(eye + grams.movedim(-1, -3))  # (*lead, n, r, r)
        projections = prefix_sums(x.unsqueeze(-2) * factor.mT, ends).mT
        means = as_columns(  # (*batch, *lead, n, r)
            lambda v: torch.cholesky_solve(v, roots), projections, roots.dim() - 2
        )

        sizes = torch.tensor(ends).diff(prepend=torch.tensor([0]))
        own_mean = means.repeat_interleave(sizes.to(sd.device), -2)  # (*batch, *lead, last, r)
        own = (x - (own_mean * factor).sum(-1)).square()
        before = torch.cat([eye.expand_as(roots[..., :1, :, :]), roots[..., :-1, :, :]], -3)
        steps = torch.diff(means, dim=-2, prepend=torch.zeros_like(means[..., :1, :]))
        moved = apply(before.mT, steps).square().sum(-1)

        squared = prefix_sums(own, ends) + moved.cumsum(-1)
        factors = roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return squared, prefix_sums(sd.log(), ends) + factors

    def triangular(self) -> FullScale:
        """By the Cholesky factor of the D x D matrix: O(D^3) for each component."""
        eye = torch.eye(self.sd.shape[-1], dtype=self.sd.dtype, device=self.sd.device)
        root = torch.linalg.cholesky(eye + self.factor @ self.factor.mT)
        diagonal = root.diagonal(dim1=-2, dim2=-1)
        return FullScale(self.sd * diagonal, root / diagonal.unsqueeze(-1))


class LowRankParameters(ScaleParameters):
    """A positive scale for every coordinate, and the factor W in units of it."""

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
        factor: Tensor,  # (*lead, D, r)
    ) -> None:
        super().__init__()
        self.sd = PyroParam(sd, constraints.softplus_positive)
        self.factor = PyroParam(factor, constraints.real)

    def scale(self) -> LowRankScale:
        """The scale at the current parameters."""
        return LowRankScale(self.sd, self.factor)

    def subset(
        self,
        index: Tensor,  # (n,) long
    ) -> LowRankParameters:
        """Parameters of their own for some of the components."""
        return LowRankParameters(self.sd.detach()[index], self.factor.detach()[index])


def _one_block(
    x: Tensor,  # (*batch, *lead, m)
    factor: Tensor,  # (*lead, m, r)
    eye: Tensor,  # (r, r)
) -> tuple[Tensor, Tensor]:  # (*batch, *lead), (*lead)
    """Squared norm and log-volume of all coordinates at once."""
    root = torch.linalg.cholesky(eye + factor.mT @ factor)
    mean = as_columns(lambda v: torch.cholesky_solve(v, root), apply(factor.mT, x), root.dim() - 2)
    squared = (x - apply(factor, mean)).square().sum(-1) + mean.square().sum(-1)
    return squared, root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
