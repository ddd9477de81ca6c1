"""A covariance of many entries as a matrix of low rank and small blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SiteFactors", "covariance_between"]


@dataclass(frozen=True)
class SiteFactors:
    """One site's rows of ``T T' + blockdiag(U_n U_n')``.

    Attributes:
        shared: T, ``(entries, G)``, entries in the order of the site.
        own: U, ``(N, b, B)`` for a site in the plate that was eliminated; None for the others.
        rows: which entry of the site each row of ``own`` is, ``(N, b)``.
        absent: entries that are no part of the model, ``(entries,)``; their variance is NaN.
    """

    shared: Tensor
    own: Tensor | None
    rows: Tensor
    absent: Tensor

    def variance(self) -> Tensor:  # (entries,)
        """The diagonal."""
        found = self.shared.square().sum(-1)
        if self.own is not None:
            found = found.index_add(0, self.rows.flatten(), self.own.square().sum(-1).flatten())
        return found.masked_fill(self.absent, torch.nan)

    def of(
        self,
        shared: Tensor,  # (G,)
        own: Tensor,  # (N, B)
    ) -> Tensor:  # (entries,)
        """The rows times a vector."""
        found = self.shared @ shared
        if self.own is not None:
            part = (self.own @ own.unsqueeze(-1)).squeeze(-1)
            found = found.index_add(0, self.rows.flatten(), part.flatten())
        return found.masked_fill(self.absent, 0.0)


def covariance_between(one: SiteFactors, other: SiteFactors) -> Tensor:  # (entries, entries)
    """The block of the covariance of two sites."""
    found = one.shared @ other.shared.mT
    if one.own is not None and other.own is not None:
        blocks = one.own @ other.own.mT  # (N, b, b')
        found[one.rows[:, :, None], other.rows[:, None, :]] += blocks
    absent = one.absent[:, None] | other.absent[None, :]
    return found.masked_fill(absent, torch.nan)
