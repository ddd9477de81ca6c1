"""A mixture of normals fitted to draws by expectation maximisation, its size chosen by BIC."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnostics.matrices import own_generator

__all__ = ["NormalMixture", "fit_mixture"]

_ITERATIONS = 200
_PATIENCE = 3


@dataclass(frozen=True)
class NormalMixture:
    """A fitted mixture.

    Attributes:
        log_shares: ``(M,)``.
        means: ``(M, D)``.
        factors: ``(M, D, D)``, Cholesky factors of the covariances.
    """

    log_shares: Tensor
    means: Tensor
    factors: Tensor

    def log_joint(
        self,
        x: Tensor,  # (S, D)
    ) -> Tensor:  # (S, M)
        """Log of share times density, per component."""
        difference = (x[:, None] - self.means).permute(1, 2, 0)  # (M, D, S)
        white = torch.linalg.solve_triangular(self.factors, difference, upper=False)
        log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = log_det + 0.5 * x.shape[1] * math.log(2 * math.pi)
        return self.log_shares - constant - 0.5 * (white**2).sum(1).T

    def log_prob(
        self,
        x: Tensor,  # (S, D)
    ) -> Tensor:  # (S,)
        """Log-density."""
        return self.log_joint(x).logsumexp(1)


def fit_mixture(
    x: Tensor,  # (S, D)
    a: Tensor,  # (S,)
    *,
    most: int,
    seed: int,
) -> NormalMixture:
    """Fit mixtures of 1, 2, ... components to weighted draws and keep the one of the best BIC.

    Covariances are full up to twenty dimensions and with at least twenty draws per dimension,
    diagonal otherwise; they have a weak inverse Wishart prior so that none collapses onto a draw
    (Fraley and Raftery, 2007).

    Args:
        x: draws.
        a: non-negative weights that sum to one; their effective number counts in BIC and prior.
        most: largest number of components.
        seed: for the starting points.
    """
    dimension = x.shape[1]
    count = float(1 / (a**2).sum())  # a draw that weighs much is still one draw
    full = dimension <= 20 and count >= 20 * dimension
    per_component = dimension + (dimension * (dimension + 1) // 2 if full else dimension)
    generator = own_generator(seed)
    best, lowest, worse = None, math.inf, 0
    for size in range(1, most + 1):
        mixture = _maximise(x, a, _start(x, a, size, generator), full=full)
        free = size * (per_component + 1) - 1
        bic = free * math.log(count) - 2 * count * float(a @ mixture.log_prob(x))
        if bic < lowest:
            best, lowest, worse = mixture, bic, 0
        else:
            worse += 1
        if worse == _PATIENCE:
            break
    assert best is not None
    return best


def _start(
    x: Tensor, a: Tensor, size: int, generator: torch.Generator
) -> Tensor:  # (S, size) responsibilities
    """Centres far from each other (k-means++: Arthur and Vassilvitskii, 2007) and their own."""
    centres = x[torch.multinomial(a, 1, generator=generator)]
    for _ in range(size - 1):
        far = a * torch.cdist(x, centres).min(1).values ** 2
        if float(far.sum()) == 0:  # fewer different draws than components
            far = a
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    nearest = torch.cdist(x, centres).argmin(1)
    return torch.nn.functional.one_hot(nearest, size).to(x)


def _maximise(x: Tensor, a: Tensor, responsibilities: Tensor, *, full: bool) -> NormalMixture:
    mean = a @ x
    spread = (x - mean).T @ (a[:, None] * (x - mean))
    before = -math.inf
    for _ in range(_ITERATIONS):
        mixture = _components(x, a, responsibilities, spread, full=full)
        log_joint = mixture.log_joint(x)
        value = float(a @ log_joint.logsumexp(1))
        if value - before < 1e-5:
            break
        before = value
        responsibilities = log_joint.softmax(1)
    return mixture


def _components(
    x: Tensor, a: Tensor, responsibilities: Tensor, spread: Tensor, *, full: bool
) -> NormalMixture:
    """The most probable mixture, given who belongs where."""
    dimension = x.shape[1]
    size = responsibilities.shape[1]
    count = 1 / (a**2).sum()
    weight = a[:, None] * responsibilities * count  # (S, M) draws
    total = weight.sum(0).clamp(min=1e-10)
    means = (weight.T @ x) / total[:, None]
    difference = (x[:, None] - means).permute(1, 2, 0)  # (M, D, S)
    scatter = (difference * weight.T[:, None]) @ difference.transpose(1, 2)
    prior = spread / size ** (2 / dimension)
    covariances = (prior + scatter) / (total + 2 * dimension + 4)[:, None, None]
    if not full:
        covariances = torch.diag_embed(covariances.diagonal(dim1=1, dim2=2))
    jitter = 1e-9 * torch.eye(dimension, dtype=x.dtype)
    return NormalMixture(
        log_shares=(total / total.sum()).log(),
        means=means,
        factors=torch.linalg.cholesky(covariances + jitter),
    )
