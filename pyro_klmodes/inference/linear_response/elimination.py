"""Solving with H exactly: local coordinates are eliminated member by member."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.inference.linear_response.curvature import Curvature
from pyro_klmodes.inference.linear_response.factors import SiteFactors
from pyro_klmodes.inference.linear_response.layout import Layout

__all__ = ["Elimination", "eliminate", "members_are_apart"]


@dataclass(frozen=True)
class Elimination:
    r"""The Cholesky factors of

    .. math::
        H = \begin{pmatrix} A & C^T \\ C & \mathrm{blockdiag}(D_n) \end{pmatrix}, \quad
        S = A - \sum_n C_n^T D_n^{-1} C_n .

    Attributes:
        layout: of the coordinates.
        members: ``L_n`` with ``L_n L_n' = D_n``, ``(N, B, B)``.
        solved: ``D_n^{-1} C_n``, ``(N, B, G)``.
        schur: L with ``L L' = S``, ``(G, G)``.
        least: the smallest eigenvalue of S, and the smallest square of a pivot of ``D_n``.
    """

    layout: Layout
    members: Tensor
    solved: Tensor
    schur: Tensor
    least: float

    def factors(self, name: str) -> SiteFactors:
        """The covariance of a site's means."""
        slopes, rows = self.layout.slopes(name), self.layout.rows(name)
        absent = self.layout.sites[name].absent_entries()
        begin = self.layout.offsets[name]
        if not self.layout.is_local(name):
            wide = slopes.new_zeros(len(slopes), self.layout.shared)
            wide[:, begin : begin + slopes.shape[1]] = slopes
            return SiteFactors(_divided(wide, self.schur), None, rows, absent)
        width = slopes.shape[-1]
        own = slopes.new_zeros(*slopes.shape[:2], self.layout.local)
        own[..., begin : begin + width] = slopes
        wide = -slopes @ self.solved[:, begin : begin + width]  # (N, b, G)
        shared = wide.new_empty(rows.numel(), self.layout.shared)
        shared[rows.flatten()] = _divided(wide.reshape(rows.numel(), -1), self.schur)
        return SiteFactors(shared, _divided(own, self.members), rows, absent)

    def newton_step(
        self,
        gradient: Tensor,  # (P,)
    ) -> tuple[Callable[[str], Tensor], float]:
        """How far a Newton step moves the means of a site, and twice what the ELBO gains by it."""
        shared, own = self._reduced(gradient)
        gain = float(shared.square().sum() + own.square().sum())
        return lambda name: self.factors(name).of(shared, own), gain

    def _reduced(
        self,
        gradient: Tensor,  # (P,)
    ) -> tuple[Tensor, Tensor]:  # (G,), (N, B)
        """``L^{-1}`` times a vector, L the Cholesky factor of H."""
        layout = self.layout
        local = gradient[layout.shared :].reshape(layout.members, layout.local, 1)
        rest = gradient[: layout.shared] - (self.solved.mT @ local).sum(0).squeeze(-1)
        shared = torch.linalg.solve_triangular(self.schur, rest.unsqueeze(-1), upper=False)
        own = torch.linalg.solve_triangular(self.members, local, upper=False)
        return shared.squeeze(-1), own.squeeze(-1)


def members_are_apart(curvature: Curvature, layout: Layout) -> bool:
    """Whether coordinates of different members of the plate never meet in H.

    For every bit of a member's number: a vector on the members without the bit must not give
    anything on those with it. Any two members differ in a bit.
    """
    if layout.plate is None:
        return True
    generator = torch.Generator().manual_seed(0)
    like = curvature.zeros()
    index = torch.arange(layout.members)
    for bit in range(max(1, math.ceil(math.log2(max(2, layout.members))))):
        chosen = (index >> bit) % 2 == 0
        local = torch.randn(layout.members, layout.local, generator=generator).to(like)
        local[~chosen] = 0
        v = torch.cat([like[: layout.shared], local.flatten()])
        found = curvature(v)[layout.shared :].reshape(layout.members, layout.local)
        limit = torch.finfo(like.dtype).eps ** 0.5 * found.abs().max()
        if bool((found[~chosen].abs() > limit).any()):
            return False
    return True


def eliminate(curvature: Curvature, layout: Layout) -> Elimination | float:
    """Factorise H; a float if it is not positive definite: the least eigenvalue found.

    It takes one product for every global coordinate, and one for every coordinate of a member.
    """
    G, N, B = layout.shared, layout.members, layout.local
    like = curvature.zeros()
    blocks = like.new_empty(N, B, B)
    for b in range(B):
        v = like.clone()
        v[G:].view(N, B)[:, b] = 1
        blocks[:, :, b] = curvature(v)[G:].view(N, B)
    top, cross = like.new_empty(G, G), like.new_empty(N, B, G)
    for g in range(G):
        v = like.clone()
        v[g] = 1
        found = curvature(v)
        top[:, g], cross[:, :, g] = found[:G], found[G:].view(N, B)
    blocks, top = 0.5 * (blocks + blocks.mT), 0.5 * (top + top.mT)
    members, failed = torch.linalg.cholesky_ex(blocks)
    if bool((failed > 0).any()):
        return float(torch.linalg.eigvalsh(blocks[failed > 0]).min())
    solved = torch.cholesky_solve(cross, members)
    schur = top - (cross.mT @ solved).sum(0)
    values = torch.linalg.eigvalsh(schur) if G else top.new_ones(1)
    pivots = members.diagonal(dim1=-2, dim2=-1).square()
    least = min(float(values.min()), float(pivots.min()) if N * B else 1.0)
    if least <= 0:
        return least
    return Elimination(layout, members, solved, torch.linalg.cholesky(schur), least)


def _divided(
    rows: Tensor,  # (*batch, R, D)
    factor: Tensor,  # (*batch, D, D), lower
) -> Tensor:  # (*batch, R, D)
    """``rows L^{-T}``."""
    return torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)
