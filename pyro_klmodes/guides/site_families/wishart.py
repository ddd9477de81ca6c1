"""Wisharts on the positive definite matrices: conjugate to precision matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
from pyro_klmodes.guides.site_families.base import Initial
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.roots import (
    increasing_root,
    inverse_trigamma,
    trigamma,
)
from pyro_klmodes.guides.site_families.supports import is_positive_definite

__all__ = ["Wishart"]


@dataclass(frozen=True)
class Wishart(ExponentialFamily):
    """``X ~ Wishart(df, scale_tril scale_tril')`` for every D x D matrix of a site.

    Parameters ``df``: ``(*members)``, above D - 1, and ``scale_tril``: ``(*members, D, D)``.
    Natural parameters ``((df - D - 1) / 2, -V^{-1} / 2)`` for the statistics ``(log det X, X)``, V
    the scale matrix; shapes ``(*members)`` and ``(*members, D, D)``. The density is with respect to
    the lower triangle of X. Starts at a multiple of the value with ``E[log det X] = log det value``
    and ``sd[log 1/(X^{-1})_ii] = scale`` for every i: ``1/(X^{-1})_ii``, what is left of one
    direction given the others, is a multiple of a chi-square with df - D + 1 degrees of freedom
    (Muirhead 1982, Theorem 3.2.12), so ``df = D + 1.85`` for the scale 1. For D = 1 that is the
    start of the Gamma.

    Limits: one number, df, is all there is for the relative width. Where entries are known with
    different accuracy, the Normal on the unconstrained space is the wider family. Off the diagonal
    the marginals, and so the quantiles, have no closed form. For an inverse Wishart, sample the
    precision matrix in the model and invert it.

    Example:
        >>> from torch.distributions import constraints
        >>> start = Wishart().initial(torch.eye(2), 2, 1.0, constraints.positive_definite)
        >>> {name: p.value.shape for name, p in start.items()}
        {'df': torch.Size([]), 'scale_tril': torch.Size([2, 2])}
    """

    statistic_dims: ClassVar[tuple[int, ...]] = (0, 2)

    def accepts(self, support: Constraint) -> bool:
        """Positive (semi)definite matrices."""
        return is_positive_definite(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """``trigamma((df - D + 1)/2) = scale^2``, the scale matrix a multiple of the value."""
        matrix = value.detach()
        size = matrix.shape[-1]
        target = torch.full(matrix.shape[:-2], scale**2, dtype=torch.float64, device=value.device)
        df = size - 1 + 2 * inverse_trigamma(target)
        log_size = _halves(df, size).digamma().mean(-1) + math.log(2)
        shrink = (-0.5 * log_size).exp().to(matrix)[..., None, None]
        above = constraints.greater_than(size - 1.0)
        scale_tril = torch.linalg.cholesky(matrix) * shrink
        return {
            "df": Initial(df.to(matrix), above, event_dim - 2),
            "scale_tril": Initial(scale_tril, constraints.lower_cholesky, event_dim),
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """``BartlettWishart(df, scale_tril)``."""
        return BartlettWishart(params["df"], params["scale_tril"]).to_event(event_dim - 2)

    def natural(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``((df - D - 1) / 2, -V^{-1} / 2)``."""
        scale_tril = params["scale_tril"]
        return (params["df"] - scale_tril.shape[-1] - 1) / 2, -0.5 * torch.cholesky_inverse(
            scale_tril
        )

    def from_natural(self, natural: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """``df = 2 eta_1 + D + 1``, ``V = (-2 eta_2)^{-1}``."""
        power, matrix = natural
        scale = torch.cholesky_inverse(torch.linalg.cholesky(-2 * matrix))
        return {
            "df": 2 * power + matrix.shape[-1] + 1,
            "scale_tril": torch.linalg.cholesky(scale),
        }

    def sufficient_statistics(
        self,
        value: Tensor,  # (*batch, *event)
        support: Constraint,
    ) -> tuple[Tensor, ...]:
        """``(log det X, X)``."""
        return torch.linalg.slogdet(value).logabsdet, value

    def log_normaliser(
        self,
        natural: tuple[Tensor, ...],
    ) -> Tensor:  # (*members)
        """``-(df / 2) log det(-eta_2) + log Gamma_D(df / 2)``, the multivariate gamma function."""
        power, matrix = natural
        size = matrix.shape[-1]
        half = power + 0.5 * (size + 1)
        log_det = 2 * torch.linalg.cholesky(-matrix).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.mvlgamma(half, p=size) - half * log_det

    def mean_parameters(self, params: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """``(sum_i digamma((df - i)/2) + D log 2 + log det V, df V)``."""
        df, scale_tril = params["df"], params["scale_tril"]
        size = scale_tril.shape[-1]
        log_det = 2 * scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        mean_log_det = _halves(df, size).digamma().sum(-1) + size * math.log(2) + log_det
        return mean_log_det, df[..., None, None] * (scale_tril @ scale_tril.mT)

    def from_mean_parameters(self, mean: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Newton in df for ``D log(df/2) - sum_i digamma((df - i)/2) = log det m_2 - m_1``."""
        mean_log_det, matrix = (m.detach().double() for m in mean)
        size = matrix.shape[-1]
        gap = torch.linalg.slogdet(matrix).logabsdet - mean_log_det

        def excess(log_room: Tensor) -> tuple[Tensor, Tensor]:
            room = log_room.exp()
            df = room + size - 1
            halves = _halves(df, size)
            slope = 0.5 * trigamma(halves).sum(-1) - size / df
            return gap - size * (df / 2).log() + halves.digamma().sum(-1), slope * room

        df = increasing_root(excess, torch.zeros_like(gap)).exp() + size - 1
        scale_tril = torch.linalg.cholesky(matrix / df[..., None, None])
        return {"df": df.to(mean[0]), "scale_tril": scale_tril.to(mean[1])}


def _halves(
    df: Tensor,  # (*members)
    size: int,
) -> Tensor:  # (*members, D)
    """``(df - i) / 2`` for i = 0, ..., D-1."""
    order = torch.arange(size, dtype=df.dtype, device=df.device)
    return (df.unsqueeze(-1) - order) / 2
