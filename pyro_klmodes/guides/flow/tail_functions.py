r"""Functions that make tails heavy, and their inverses, finite and differentiable everywhere.

Writing :math:`g(t) = e^t - 1`, a tail transform takes ``g`` of something that grows like
:math:`\lambda z^2 / 2`. In single precision that overflows at thirteen standard deviations for
:math:`\lambda = 1`. Beyond an exponent so large that it makes no difference to any draw, ``g`` goes
on along its tangent, so that it stays an exact bijection.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "exponential_to_half_normal",
    "growth",
    "half_normal_to_exponential",
    "log_growth_slope",
    "log_hazard",
    "shrinkage",
]

# Below this the ratios are evaluated as power series, because their derivatives cancel. In either
# branch the argument is kept where the branch is finite: a gradient of inf * 0 would be NaN.
_SMALL = 0.01

# Where the start of Newton's method changes, and how many steps reach the last digit from there.
_FAR = 5.0
_NEWTON_STEPS = 4


def growth(
    t: Tensor,  # non-negative
) -> Tensor:
    """``g(t) / t``, which is 1 at t = 0."""
    small = t < _SMALL
    s = t.clamp(max=_SMALL)
    series = 1 + s / 2 * (1 + s / 3 * (1 + s / 4 * (1 + s / 5 * (1 + s / 6))))
    safe = torch.where(small, torch.ones_like(t), t)
    cap = _cap(t)
    beyond = torch.where(safe > cap, safe - cap, torch.zeros_like(t))
    grown = torch.expm1(safe.clamp(max=cap)) + math.exp(cap) * beyond
    return torch.where(small, series, grown / safe)


def log_growth_slope(
    t: Tensor,  # non-negative
) -> Tensor:
    """``log g'(t)``."""
    return t.clamp(max=_cap(t))


def shrinkage(
    y: Tensor,  # non-negative
) -> Tensor:
    """``t / y`` for the t with g(t) = y, which is 1 at y = 0."""
    small = y < _SMALL
    s = y.clamp(max=_SMALL)
    series = 1 - s * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s * (1 / 5 - s * (1 / 6 - s / 7)))))
    safe = torch.where(small, torch.ones_like(y), y)
    cap = _cap(y)
    top = math.expm1(cap)
    beyond = torch.where(safe > top, safe - top, torch.zeros_like(y))
    shrunk = torch.log1p(safe.clamp(max=top)) + math.exp(-cap) * beyond
    return torch.where(small, series, shrunk / safe)


def half_normal_to_exponential(
    z: Tensor,  # non-negative
) -> Tensor:
    r"""``-log erfc(z / sqrt 2)``: minus the logarithm of the chance that \|N(0, 1)\| exceeds z."""
    return -math.log(2) - torch.special.log_ndtr(-z)


def log_hazard(
    z: Tensor,  # non-negative
) -> Tensor:
    """The logarithm of the derivative of ``half_normal_to_exponential``."""
    return 0.5 * math.log(2 / math.pi) - torch.special.erfcx(z * math.sqrt(0.5)).log()


def exponential_to_half_normal(
    a: Tensor,  # non-negative
) -> Tensor:
    """The inverse of ``half_normal_to_exponential``, with derivatives of any order."""
    z: Tensor = _HalfNormalQuantile.apply(a)
    return z


class _HalfNormalQuantile(torch.autograd.Function):
    """Solved by Newton's method and differentiated as the inverse function it is."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        # erfinv is exact in the middle and has no digits left far out, where the expansion of
        # log erfc for large arguments is a good start
        middle = math.sqrt(2) * torch.special.erfinv(-torch.expm1(-a.clamp(max=_FAR)))
        far = a.clamp(min=_FAR)
        z = torch.where(a < _FAR, middle, (2 * far - torch.log(math.pi * far)).sqrt())
        for _ in range(_NEWTON_STEPS):
            z = z - (half_normal_to_exponential(z) - a) * torch.exp(-log_hazard(z))
        z = z.clamp(min=0)
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return grads[0] * torch.exp(-log_hazard(z))


def _cap(like: Tensor) -> float:
    """Where growth becomes linear: what it reaches there can still be squared."""
    return 0.4 * math.log(torch.finfo(like.dtype).max)
