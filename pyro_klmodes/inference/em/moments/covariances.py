"""A covariance in the form that a parameter has, and whether it is one at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Given", "covariance_from", "singular_in"]


@dataclass(frozen=True)
class Given:
    """How the covariance of a MultivariateNormal is given.

    Attributes:
        how: the name of the argument, or ``"known"``.
        known: the precision in that case.
    """

    how: str
    known: Tensor | None = None

    def precision(
        self,
        matrix: Tensor,  # (R, D, D)
    ) -> Tensor:  # (R, D, D), or (D, D)
        """The precision of a parameter's value."""
        if self.known is not None:
            return self.known
        if self.how == "precision_matrix":
            return matrix
        factor = matrix if self.how == "scale_tril" else torch.linalg.cholesky(matrix)
        return torch.cholesky_inverse(factor)

    def covariance(
        self,
        matrix: Tensor,  # (R, D, D)
    ) -> Tensor:  # (R, D, D)
        """The covariance of a parameter's value."""
        if self.how == "scale_tril":
            return matrix @ matrix.mT
        if self.how == "precision_matrix":
            return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return matrix


def covariance_from(
    covariance: Tensor,  # (R, D, D)
    how: str,
    floor: float,
) -> Tensor:  # (R, D, D)
    """The parameter that a covariance is given by, its eigenvalues at least ``floor``.

    Example:
        >>> covariance_from(torch.diag_embed(torch.tensor([[4.0, 0.1]])), "scale_tril", 1.0)
        tensor([[[2., 0.],
                 [0., 1.]]])
    """
    covariance = (covariance + covariance.mT) / 2
    if floor > 0:
        values, vectors = torch.linalg.eigh(covariance)
        raised = (vectors * values.clamp(min=floor).unsqueeze(-2)) @ vectors.mT
        low = values[..., :1, None] < floor
        covariance = torch.where(low, (raised + raised.mT) / 2, covariance)
    if how == "covariance_matrix":
        return covariance
    factor = torch.linalg.cholesky(covariance)
    return factor if how == "scale_tril" else torch.cholesky_inverse(factor)


def singular_in(
    covariance: Tensor,  # (R, D, D)
    size: Tensor,  # (R, D), mean squares that the variances are differences of
    eps: float,
) -> Tensor:  # (R,)
    """Where a variance, or a direction after scaling all variances to one, is lost in rounding."""
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    lost = (variance <= 8 * eps * size).any(-1) | ~covariance.isfinite().flatten(1).all(1)
    safe = torch.where(lost[:, None], torch.ones_like(variance), variance)
    sd = safe.sqrt()
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
    correlation = torch.where(
        lost[:, None, None], eye, covariance / (sd[:, :, None] * sd[:, None, :])
    )
    smallest = torch.linalg.eigvalsh(correlation)[:, 0]
    return lost | (smallest <= 8 * eps * covariance.shape[-1])
