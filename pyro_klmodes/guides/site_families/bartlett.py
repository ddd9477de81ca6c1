"""A Wishart distribution that draws each matrix once."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["BartlettWishart"]

_ONE_DRAW = torch.Size()


class BartlettWishart(TorchDistribution):
    """``X = L A A' L'``, with ``L L'`` the scale matrix and A of Bartlett's decomposition (1933).

    A is lower triangular, ``A_ii^2 ~ chi^2(df - i)`` for i = 0, ..., D-1 and standard normal below
    the diagonal; gradients go through both. ``torch.distributions.Wishart`` draws from the same
    decomposition, but takes every regular matrix for a singular one, warns and draws again, and
    warns of any df below D. The density is with respect to the lower triangle of X.

    Args:
        df: degrees of freedom, ``(*batch)``, above D - 1.
        scale_tril: Cholesky factor of the scale matrix, ``(*batch, D, D)``. The mean is
            ``df * scale_tril @ scale_tril.mT``.

    Limits: matrices with df close to D - 1 are singular in floating point, where the density is
    unbounded for df < D + 1.

    Example:
        >>> wishart = BartlettWishart(torch.tensor(4.0), torch.eye(2))
        >>> wishart.rsample((5,)).shape
        torch.Size([5, 2, 2])
        >>> wishart.log_prob(torch.eye(2))
        tensor(-4.2242)
    """

    support = constraints.positive_definite
    has_rsample = True

    def __init__(
        self,
        df: Tensor,  # (*batch)
        scale_tril: Tensor,  # (*batch, D, D)
        *,
        validate_args: bool | None = None,
    ) -> None:
        batch = torch.broadcast_shapes(df.shape, scale_tril.shape[:-2])
        self.df = df.expand(batch)
        self.scale_tril = scale_tril.expand(*batch, *scale_tril.shape[-2:])
        super().__init__(batch, scale_tril.shape[-2:], validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        """``df > D - 1`` and a Cholesky factor."""
        return {
            "df": constraints.greater_than(self.event_shape[-1] - 1),
            "scale_tril": constraints.lower_cholesky,
        }

    def expand(self, batch_shape: Any, _instance: Any = None) -> BartlettWishart:
        """The same distribution with more batch dimensions."""
        new = self._get_checked_instance(BartlettWishart, _instance)
        batch = torch.Size(batch_shape)
        new.df = self.df.expand(batch)
        new.scale_tril = self.scale_tril.expand(*batch, *self.event_shape)
        super(BartlettWishart, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:  # (*batch, D, D)
        """``df`` times the scale matrix."""
        return self.df[..., None, None] * (self.scale_tril @ self.scale_tril.mT)

    def rsample(
        self,
        sample_shape: Any = _ONE_DRAW,
    ) -> Tensor:  # (*sample_shape, *batch, D, D)
        """Draw matrices, differentiable."""
        shape = self._extended_shape(torch.Size(sample_shape))
        order = torch.arange(shape[-1], dtype=self.df.dtype, device=self.df.device)
        halves = ((self.df.unsqueeze(-1) - order) / 2).expand(shape[:-1])
        chi2 = 2 * torch.distributions.Gamma(halves, 1.0).rsample()
        below = torch.randn(shape, dtype=self.df.dtype, device=self.df.device).tril(-1)
        factor = self.scale_tril @ (below + chi2.sqrt().diag_embed())
        return factor @ factor.mT

    def log_prob(
        self,
        value: Tensor,  # (*sample_shape, *batch, D, D)
    ) -> Tensor:  # (*sample_shape, *batch)
        """The log-density of symmetric positive definite matrices."""
        if self._validate_args:
            self._validate_sample(value)
        size = self.event_shape[-1]
        log_det = torch.linalg.slogdet(value).logabsdet
        log_det_scale = 2 * self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        scale_tril = self.scale_tril.expand(value.shape)
        trace = torch.cholesky_solve(value, scale_tril).diagonal(dim1=-2, dim2=-1).sum(-1)
        normaliser = 0.5 * self.df * (size * math.log(2) + log_det_scale)
        normaliser = normaliser + torch.mvlgamma(self.df / 2, p=size)
        return 0.5 * (self.df - size - 1) * log_det - 0.5 * trace - normaliser
