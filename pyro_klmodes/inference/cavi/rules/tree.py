"""Linear algebra of vectors that are each linear in those before them, in nested plates.

Site i has a vector of size d_i for every one of its members, and is given the sites k < i, which
are in no plates but its own. Precisions and factors are in lower rows: ``P[i][k]`` for k <= i has
the shape ``(*members_i, d_i, d_k)``; what a site in more plates says about one in fewer is summed
over its members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_klmodes.inference.cavi.rules.normal import precision_factor

__all__ = ["Rows", "eliminated", "factors", "precision_of", "summed"]

Rows = list[list[Tensor]]


def summed(
    value: Tensor,  # (*members, *rest)
    like: Tensor,  # (*fewer members, *other rest)
    dims: int,
) -> Tensor:  # (*fewer members, *rest)
    """Sum over the members that another value does not have.

    Args:
        value: of a site in more plates.
        like: of a site in fewer.
        dims: number of dimensions that are no members, in both.
    """
    rest = value.shape[value.dim() - dims :]
    return value.sum_to_size(torch.Size([*like.shape[: like.dim() - dims], *rest]))


def factors(
    trils: Sequence[Tensor],  # (*members_i, d_i, d_i)
    slopes: Sequence[Sequence[Tensor]],  # [i][k]: (*members_i, d_i, d_k)
) -> Rows:
    """``B[i][k]`` with ``u_i - loc_i = sum_k B[i][k] noise_k``."""
    rows: Rows = []
    for i, tril in enumerate(trils):
        row = []
        for k in range(i):
            parts = [slopes[i][m] @ rows[m][k] for m in range(k, i)]
            row.append(torch.stack(parts).sum(0))
        rows.append([*row, tril])
    return rows


def precision_of(trils: Sequence[Tensor], slopes: Sequence[Sequence[Tensor]]) -> Rows:
    """The precision ``sum_i (e_i - slope_i)' (tril_i tril_i')^-1 (e_i - slope_i)``."""
    rows: Rows = []
    for tril, own_slopes in zip(trils, slopes, strict=True):
        own = torch.cholesky_inverse(tril)
        for k, slope in enumerate(own_slopes):
            for m in range(k + 1):
                more = slope.mT @ own @ own_slopes[m]
                rows[k][m] = rows[k][m] + summed(more, rows[k][m], 2)
        rows.append([*(-own @ slope for slope in own_slopes), own])
    return rows


def eliminated(
    precision: Rows,
    right: Sequence[Tensor],  # (*members_i, d_i)
    old: Sequence[Tensor],  # (*members_i, d_i, d_i), for what is large and what is not
) -> tuple[list[Tensor], list[list[Tensor]], list[Tensor]]:
    """The solution of ``P x = right``, and slopes and factors ``tril`` of a precision.

    They are not numbers where nothing determines a site.
    """
    rows, b = [list(row) for row in precision], list(right)
    count = len(rows)
    slopes: list[list[Tensor]] = [[] for _ in range(count)]
    trils, solved = list(b), list(b)
    for i in reversed(range(count)):
        chol = precision_factor(rows[i][i], old[i])
        solved[i] = torch.cholesky_solve(b[i].unsqueeze(-1), chol).squeeze(-1)
        trils[i] = torch.linalg.cholesky_ex(torch.cholesky_inverse(chol)).L
        slopes[i] = [-torch.cholesky_solve(part, chol) for part in rows[i][:i]]
        for k in range(i):
            cross = rows[i][k].mT
            b[k] = b[k] - summed((cross @ solved[i].unsqueeze(-1)).squeeze(-1), b[k], 1)
            for m in range(k + 1):
                rows[k][m] = rows[k][m] + summed(cross @ slopes[i][m], rows[k][m], 2)
    for i in range(count):
        for k in range(i):
            solved[i] = solved[i] + (slopes[i][k] @ solved[k].unsqueeze(-1)).squeeze(-1)
    return solved, slopes, trils
