"""Normal sites together, alone or with a precision that they are in units of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.guides.block_families import JointNormal, NormalGamma
from pyro_klmodes.inference.cavi.rules.base import JointRule, Nodes, Params, blended
from pyro_klmodes.inference.cavi.rules.cubature import simplex
from pyro_klmodes.inference.cavi.rules.gamma import GammaRule
from pyro_klmodes.inference.cavi.rules.tree import (
    Rows,
    eliminated,
    factors,
    precision_of,
    summed,
)

__all__ = ["JointNormalRule"]


class JointNormalRule(JointRule):
    r"""Nodes ``tau_s`` of the Gamma, and ``u = loc + B x_r / sqrt(tau_s)`` for each of them.

    B is the factor of the covariance of all vectors together, x_r are the corners of a simplex. A
    function affine in the statistics ``(log tau, tau, tau u, tau u u')`` is, around the location,

    .. math:: f = c_1 \log\tau + c_2 \tau + \tau (g \cdot v + v^T C v / 2), \qquad v = u - loc,

    with the slopes ``tau (g + C v)`` in u, which give g and C, and the slope in tau, whose mean
    over x is :math:`(c_1 + \mathrm{tr}(C B B^T) / 2) / \tau + c_2`. The step solves for the new
    precision ``-C`` and location; the rate takes what the location moves. Without tau it is one.

    Args:
        family: ``JointNormal`` or ``NormalGamma``.
    """

    def __init__(self, family: JointNormal | NormalGamma) -> None:
        self.family, self.normals = family, family.normals
        self.sites = family.sites
        self.names = [x.name for x in self.normals.latents]
        self.tau = family.tau.name if isinstance(family, NormalGamma) else None
        self.gamma = GammaRule(NormalGamma.family)
        self.x = simplex(sum(self.normals.sizes))
        self.count = len(self.x) * (1 if self.tau is None else 2)

    # -- nodes -------------------------------------------------------------------------------------

    def points(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Nodes of tau, each for all nodes of the normals, and those."""
        found = {}
        if self.tau is not None:
            both = self.gamma.points(params[self.tau])
            found[self.tau] = both.repeat_interleave(len(self.x), 0)
        trils, slopes = self._factored(params)
        away: list[Tensor] = []
        for i, name in enumerate(self.names):
            latent = self.normals.latents[i]
            noise = self._noise(i, trils[i])
            spread = torch.einsum("...ij,sj->s...i", trils[i], noise)
            if self.tau is not None:
                spread = spread * self._units(found[self.tau], spread).rsqrt()
            for before, slope in zip(away, slopes[i], strict=True):
                spread = spread + (slope @ _padded(before, spread).unsqueeze(-1)).squeeze(-1)
            away.append(spread)
            found[name] = params[name]["loc"] + self.normals.values(latent, spread)
        return found

    def nodes(self, points: Mapping[str, Tensor]) -> dict[str, Nodes]:
        """All points, with equal weights."""
        weights = next(iter(points.values())).new_full((self.count,), 1 / self.count)
        return {name: Nodes(points[name], weights) for name in self.sites}

    def _noise(self, i: int, like: Tensor) -> Tensor:  # (S, d_i)
        parts = self.x.to(like).split(list(self.normals.sizes), -1)
        return parts[i].repeat(self.count // len(self.x), 1)

    def _units(
        self,
        tau: Tensor,  # (S, *members of tau)
        like: Tensor,  # (S, *members, d)
    ) -> Tensor:  # (S, 1, ..., 1, *members of tau, 1)
        return _padded(tau.unsqueeze(-1), like)

    def _factored(self, params: Mapping[str, Params]) -> tuple[list[Tensor], list[list[Tensor]]]:
        trils = [params[n]["scale_tril"] for n in self.names]
        slopes = [
            self.normals.slopes(i, params[n]["slope"]) if i else []
            for i, n in enumerate(self.names)
        ]
        return trils, slopes

    # -- steps -------------------------------------------------------------------------------------

    def step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
    ) -> dict[str, dict[str, Tensor]]:
        """See the class; not a number where nothing determines a site."""
        trils, slopes = self._factored(params)
        spread = factors(trils, slopes)
        mean, moments = self._moments(points, gradients)
        curvature = self._curvature(moments, spread)
        target = [[-part for part in row] for row in curvature]
        if rho != 1:
            old = precision_of(trils, slopes)
            target = [
                [(1 - rho) * a + rho * b for a, b in zip(*rows, strict=True)]
                for rows in zip(old, target, strict=True)
            ]
        right = [rho * g for g in mean]
        scales = [torch.cholesky_inverse(tril) for tril in trils]
        moved, new_slopes, new_trils = eliminated(target, right, scales)
        found: dict[str, dict[str, Tensor]] = {}
        if self.tau is not None:
            trace = self._of_tau(
                params, [(m * b).sum((-2, -1)) for m, b in _pairs(moments, spread)]
            )
            shift = self._of_tau(
                params, [(x * g).sum(-1) for x, g in zip(moved, right, strict=True)]
            )
            found[self.tau] = self._gamma_step(params, points, gradients, rho, trace, shift)
        for i, name in enumerate(self.names):
            loc = params[name]["loc"] + self.normals.values(self.normals.latents[i], moved[i])
            found[name] = {"loc": loc, "scale_tril": new_trils[i]}
            if i:
                found[name]["slope"] = torch.cat(new_slopes[i], -1)
        return found

    def _moments(
        self, points: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Rows]:
        """``g`` of every site, and ``(C B)[i][k]`` for k <= i."""
        mean, moments = [], []
        for i, name in enumerate(self.names):
            slope = self.normals.vectors(self.normals.latents[i], gradients[name])
            root = torch.ones_like(slope)
            if self.tau is not None:
                root = self._units(points[self.tau], slope).sqrt()
            mean.append((slope / root.square()).sum(0))
            moments.append(
                [
                    torch.einsum("s...i,sj->...ij", slope / root, self._noise(k, slope))
                    for k in range(i + 1)
                ]
            )
        return mean, moments

    @staticmethod
    def _curvature(moments: Rows, spread: Rows) -> Rows:
        """``C`` of ``C B``, from the last site to the first."""
        count = len(moments)
        rows: Rows = [[] for _ in range(count)]
        for i in reversed(range(count)):
            rest = list(moments[i])
            for k in range(i + 1):
                for later in range(i + 1, count):  # C is symmetric
                    known = rows[later][i].mT @ spread[later][k]
                    rest[k] = rest[k] - summed(known, rest[k], 2)
            row: list[Tensor] = [torch.empty(0)] * (i + 1)
            for k in reversed(range(i + 1)):
                left = rest[k]
                for m in range(k + 1, i + 1):
                    left = left - row[m] @ spread[m][k]
                row[k] = torch.linalg.solve_triangular(spread[k][k], left, upper=False, left=False)
            row[i] = 0.5 * (row[i] + row[i].mT)
            rows[i] = row
        return rows

    def _of_tau(self, params: Mapping[str, Params], parts: list[Tensor]) -> Tensor:
        """Numbers of every member, added up for every entry of tau."""
        like = params[str(self.tau)]["rate"]
        return torch.stack([summed(part, like, 0) for part in parts]).sum(0)

    def _gamma_step(
        self,
        params: Mapping[str, Params],
        points: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        rho: float,
        trace: Tensor,  # tr(C B B')
        shift: Tensor,  # of the location, times right side
    ) -> dict[str, Tensor]:
        assert self.tau is not None
        old = params[self.tau]
        each = len(self.x)
        slopes = gradients[self.tau]
        slopes = slopes.reshape(2, each, *slopes.shape[1:]).sum(1)
        first, second = self.gamma.coefficients(points[self.tau][::each], slopes)
        # the normals have half of a logarithm of tau for each of their entries
        halves = [torch.full_like(params[n]["scale_tril"][..., 0], 0.5) for n in self.names]
        entries = self._of_tau(params, [h.sum(-1) for h in halves])
        now = (old["concentration"] - 1 + entries, -old["rate"])
        power, linear = blended(now, (first - 0.5 * trace, second), rho)
        concentration, rate = power + 1 - entries, -linear - 0.5 * shift
        proper = (concentration > 0) & (rate > 0)
        return {
            "concentration": concentration.masked_fill(~proper, math.nan),
            "rate": rate.masked_fill(~proper, math.nan),
        }

    # -- entropy -----------------------------------------------------------------------------------

    def entropy(self, params: Mapping[str, Params]) -> dict[str, Tensor]:
        """Of tau, and of every site given those before it."""
        found: dict[str, Tensor] = {}
        mean_log: Any = 0.0
        if self.tau is not None:
            found[self.tau] = self.gamma.entropy(params[self.tau])
            mean_log, _ = self.gamma.family.mean_parameters(params[self.tau])
        for name, size in zip(self.names, self.normals.sizes, strict=True):
            log_sd = params[name]["scale_tril"].diagonal(dim1=-2, dim2=-1).log().sum(-1)
            constant = 0.5 * math.log(2 * math.pi * math.e)
            found[name] = log_sd + size * (constant - 0.5 * mean_log)
        return found


def _padded(
    value: Tensor,  # (S, *fewer, d)
    like: Tensor,  # (S, *members, e)
) -> Tensor:  # (S, 1, ..., 1, *fewer, d)
    """Members on the right, as in plates."""
    ones = [1] * (like.dim() - value.dim())
    return value.reshape(len(value), *ones, *value.shape[1:])


def _pairs(one: Rows, other: Rows) -> list[tuple[Tensor, Tensor]]:
    return [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
