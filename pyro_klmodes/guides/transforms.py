"""Bijections from real vectors that torch lacks, or computes too inaccurately to train with.

Each ``log_abs_det_jacobian`` is a function of x alone: a log-determinant read off y is lost as soon
as y rounds to the boundary of its support, long before x is large.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import (
    CorrCholeskyTransform,
    StickBreakingTransform,
    Transform,
)
from torch.distributions.utils import tril_matrix_to_vec, vec_to_tril_matrix
from torch.nn.functional import logsigmoid, softplus

__all__ = [
    "StableCorrCholesky",
    "StableStickBreaking",
    "VectorToLowerCholesky",
    "VectorToPositiveDefinite",
]


class VectorToLowerCholesky(Transform):
    """Real vectors of length D(D+1)/2 to lower triangles with positive diagonal.

    The vector fills the triangle row by row and the diagonal is exponentiated, so that the log
    absolute Jacobian determinant (over the entries of the triangle) is the sum of the entries that
    go to the diagonal. torch's ``LowerCholeskyTransform`` starts from a whole matrix, of which it
    ignores half, and is no bijection.

    Example:
        >>> transform = VectorToLowerCholesky()
        >>> transform(torch.tensor([0.0, 2.0, 0.0]))
        tensor([[1., 0.],
                [2., 1.]])
        >>> transform.forward_shape(torch.Size([5, 6]))
        torch.Size([5, 3, 3])
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def _call(
        self,
        x: Tensor,  # (*batch, D(D+1)/2)
    ) -> Tensor:  # (*batch, D, D)
        triangle = vec_to_tril_matrix(x)
        diagonal = triangle.diagonal(dim1=-2, dim2=-1)
        return triangle.tril(-1) + diagonal.exp().diag_embed()

    def _inverse(
        self,
        y: Tensor,  # (*batch, D, D)
    ) -> Tensor:  # (*batch, D(D+1)/2)
        diagonal = y.diagonal(dim1=-2, dim2=-1)
        return tril_matrix_to_vec(y.tril(-1) + diagonal.log().diag_embed())

    def log_abs_det_jacobian(
        self,
        x: Tensor,  # (*batch, D(D+1)/2)
        y: Tensor,  # (*batch, D, D)
    ) -> Tensor:  # (*batch)
        """The sum of the log-diagonal of y."""
        return _diagonal_entries(x).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """``(*batch, D(D+1)/2)`` to ``(*batch, D, D)``."""
        return _triangle_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """``(*batch, D, D)`` to ``(*batch, D(D+1)/2)``."""
        return _vector_shape(shape)


class VectorToPositiveDefinite(Transform):
    """Real vectors of length D(D+1)/2 to symmetric positive definite matrices ``L L'``.

    L is the image under :class:`VectorToLowerCholesky`. The Jacobian is over the entries of the
    lower triangle of the matrix; with ``|d(L L') / dL| = 2^D prod_i L_ii^(D - i)``, i = 0, ..., D-1
    (Muirhead 1982, Theorem 2.1.9), its log absolute determinant is

        D log 2 + sum_i (D - i + 1) log L_ii.

    Example:
        >>> transform = VectorToPositiveDefinite()
        >>> transform(torch.tensor([0.0, 2.0, 0.0]))
        tensor([[1., 2.],
                [2., 5.]])
    """

    domain = constraints.real_vector
    codomain = constraints.positive_definite
    bijective = True

    def _call(
        self,
        x: Tensor,  # (*batch, D(D+1)/2)
    ) -> Tensor:  # (*batch, D, D)
        triangle = VectorToLowerCholesky()(x)
        return triangle @ triangle.mT

    def _inverse(
        self,
        y: Tensor,  # (*batch, D, D)
    ) -> Tensor:  # (*batch, D(D+1)/2)
        return VectorToLowerCholesky().inv(torch.linalg.cholesky(y))

    def log_abs_det_jacobian(
        self,
        x: Tensor,  # (*batch, D(D+1)/2)
        y: Tensor,  # (*batch, D, D)
    ) -> Tensor:  # (*batch)
        """``D log 2 + sum_i (D - i + 1) log L_ii``."""
        log_diagonal = _diagonal_entries(x)
        size = log_diagonal.shape[-1]
        powers = torch.arange(size + 1, 1, -1, dtype=x.dtype, device=x.device)
        return size * math.log(2) + (powers * log_diagonal).sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """``(*batch, D(D+1)/2)`` to ``(*batch, D, D)``."""
        return _triangle_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """``(*batch, D, D)`` to ``(*batch, D(D+1)/2)``."""
        return _vector_shape(shape)


class StableCorrCholesky(CorrCholeskyTransform):
    """torch's ``CorrCholeskyTransform`` with a log-determinant and an inverse that stay accurate.

    The same map: ``r = tanh(x)`` fills the strict lower triangle row by row, and

        L_ij = r_ij prod_{k<j} (1 - r_ik^2)^(1/2),    L_ii = prod_{k<i} (1 - r_ik^2)^(1/2)

    (Lewandowski, Kurowicka and Joe 2009). torch reads the log-determinant off ``1 - sum L_ij^2``,
    which in single precision rounds to zero or below for inputs of ordinary size and makes the loss
    not a number. Here both are computed from ``log(1 - tanh^2)``, and the inverse from
    ``x_ij = asinh(L_ij / (sum_{k>j} L_ik^2)^(1/2))``.

    Example:
        >>> transform = StableCorrCholesky()
        >>> x = torch.tensor([3.0, 4.0, 5.0])
        >>> torch.allclose(transform.inv(transform(x)), x, atol=1e-4)
        True
    """

    def _call(
        self,
        x: Tensor,  # (*batch, D(D-1)/2)
    ) -> Tensor:  # (*batch, D, D)
        partial = vec_to_tril_matrix(x.tanh(), diag=-1)
        log_left = vec_to_tril_matrix(_log_sech2(x), diag=-1)
        eye = torch.eye(partial.shape[-1], dtype=x.dtype, device=x.device)
        before = (0.5 * (log_left.cumsum(-1) - log_left)).exp()
        # a diagonal that underflows to zero has an infinite logarithm
        return (partial + eye) * before.clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(
        self,
        y: Tensor,  # (*batch, D, D)
    ) -> Tensor:  # (*batch, D(D-1)/2)
        after = _sum_after(y * y).clamp(min=torch.finfo(y.dtype).tiny)
        return tril_matrix_to_vec((y / after.sqrt()).tril(-1).asinh(), diag=-1)

    def log_abs_det_jacobian(
        self,
        x: Tensor,  # (*batch, D(D-1)/2)
        y: Tensor,  # (*batch, D, D)
        intermediates: Tensor | None = None,
    ) -> Tensor:  # (*batch)
        """``sum_{i>j} (1 + (i - 1 - j)/2) log(1 - tanh(x_ij)^2)``, over the strict triangle."""
        size = y.shape[-1]
        row, column = torch.tril_indices(size, size, offset=-1, device=x.device)
        weight = 1 + 0.5 * (row - 1 - column).to(x.dtype)
        return (weight * _log_sech2(x)).sum(-1)


class StableStickBreaking(StickBreakingTransform):
    """torch's ``StickBreakingTransform`` computed with logarithms, so that no stick is rounded off.

    The same map: with ``z_j = sigmoid(x_j - log(n - 1 - j))``, j = 0, ..., n-2,

        y_j = z_j prod_{k<j} (1 - z_k),    y_{n-1} = prod_k (1 - z_k),

    so that x = 0 is the centre of the simplex. The inverse takes what is left of the stick from the
    entries after j, ``log y_j - log sum_{k>j} y_k``, and not from one minus those before, which
    cancels. The log-determinant is over the first n-1 entries.

    Example:
        >>> StableStickBreaking()(torch.zeros(2))
        tensor([0.3333, 0.3333, 0.3333])
    """

    def _call(
        self,
        x: Tensor,  # (*batch, n - 1)
    ) -> Tensor:  # (*batch, n)
        log_taken, log_left = _log_sticks(x)
        zero = torch.zeros_like(x[..., :1])
        log_y = torch.cat([log_taken, zero], -1) + torch.cat([zero, log_left.cumsum(-1)], -1)
        return log_y.exp().clamp(min=torch.finfo(x.dtype).tiny)

    def _inverse(
        self,
        y: Tensor,  # (*batch, n)
    ) -> Tensor:  # (*batch, n - 1)
        tiny = torch.finfo(y.dtype).tiny
        after = _sum_after(y).clamp(min=tiny)
        x = (y.clamp(min=tiny).log() - after.log())[..., :-1]
        return x + _stick_offset(x)

    def log_abs_det_jacobian(
        self,
        x: Tensor,  # (*batch, n - 1)
        y: Tensor,  # (*batch, n)
    ) -> Tensor:  # (*batch)
        """``sum_j [log z_j + log(1 - z_j) + sum_{k<j} log(1 - z_k)]``."""
        log_taken, log_left = _log_sticks(x)
        return (log_taken + log_left.cumsum(-1)).sum(-1)


def _diagonal_entries(
    x: Tensor,  # (*batch, D(D+1)/2)
) -> Tensor:  # (*batch, D)
    row = torch.arange(_triangle_size(x.shape[-1]), device=x.device)
    return x[..., row * (row + 3) // 2]


def _triangle_size(length: int) -> int:
    size = (math.isqrt(8 * length + 1) - 1) // 2
    if size * (size + 1) // 2 != length:
        raise ValueError(
            f"a vector of length {length} fills no triangle; the lengths that do are D(D+1)/2: "
            "1, 3, 6, 10, ..."
        )
    return size


def _triangle_shape(shape: torch.Size) -> torch.Size:
    size = _triangle_size(shape[-1])
    return torch.Size((*shape[:-1], size, size))


def _vector_shape(shape: torch.Size) -> torch.Size:
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"a value of shape {tuple(shape)} is not a square matrix")
    return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


def _log_sech2(x: Tensor) -> Tensor:
    """``log(1 - tanh(x)^2)``, also where tanh(x) rounds to one."""
    return 2 * (math.log(2) - x - softplus(-2 * x))


def _sum_after(
    y: Tensor,  # (*batch, n)
) -> Tensor:  # (*batch, n)
    """Sum of the entries to the right of each; the smallest are added first."""
    return y.flip(-1).cumsum(-1).flip(-1).roll(-1, -1) * _not_last(y)


def _not_last(y: Tensor) -> Tensor:
    return torch.arange(y.shape[-1], device=y.device) < y.shape[-1] - 1


def _log_sticks(
    x: Tensor,  # (*batch, n - 1)
) -> tuple[Tensor, Tensor]:  # log z and log(1 - z)
    centred = x - _stick_offset(x)
    return logsigmoid(centred), logsigmoid(-centred)


def _stick_offset(
    x: Tensor,  # (*batch, n - 1)
) -> Tensor:  # (n - 1)
    return torch.arange(x.shape[-1], 0, -1, dtype=x.dtype, device=x.device).log()
