"""Solving with H by products alone, for more coordinates than fit into a matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NotPositive", "conjugate_gradients"]


class NotPositive(ArithmeticError):
    """A direction along which the matrix is not positive; ``curvature`` says how much."""

    def __init__(self, curvature: float) -> None:
        super().__init__(f"curvature {curvature:.3g}")
        self.curvature = curvature


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    b: Tensor,  # (P,)
    *,
    least: float,
    most: int = 1000,
) -> Tensor:  # (P,)
    """Solve ``H x = b`` to the precision of the numbers.

    Args:
        product: ``v -> H v`` for a symmetric H whose eigenvalues are of the order of one.
        b: the right-hand side.
        least: curvature ``v'Hv / v'v`` below which a direction counts as flat.
        most: the most products to take.

    Raises:
        NotPositive: if a direction is flat or worse, or the steps do not get there.

    Source: Hestenes and Stiefel (1952), "Methods of conjugate gradients for solving linear
    systems".

    Example:
        >>> h = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> x = conjugate_gradients(lambda v: h @ v, torch.tensor([3.0, 4.0]), least=1e-6)
        >>> x.round(decimals=4)
        tensor([1., 1.])
    """
    x, r = torch.zeros_like(b), b.clone()
    p, size = r.clone(), r @ r
    # a residual of a few roundings is what there is to reach
    end = (8 * torch.finfo(b.dtype).eps) ** 2 * size
    best = size
    since = 0
    for _ in range(most):
        if size <= end or since >= 20:
            break
        h = product(p)
        curvature = p @ h
        if not curvature > least * (p @ p):
            raise NotPositive(float(curvature / (p @ p)))
        step = size / curvature
        x, r = x + step * p, r - step * h
        old, size = size, r @ r
        best, since = (size, 0) if size < 0.5 * best else (best, since + 1)
        p = r + (size / old) * p
    if best > torch.finfo(b.dtype).eps * (b @ b):
        raise NotPositive(0.0)
    return x
