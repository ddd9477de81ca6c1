"""Solving for parameters: digamma and trigamma inverted, a bracketed Newton iteration.

All of it is done in double precision and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["increasing_root", "inverse_digamma", "inverse_trigamma", "trigamma"]

_STEPS = 100


def trigamma(x: Tensor) -> Tensor:
    """The derivative of digamma."""
    return torch.polygamma(1, x)


def inverse_digamma(y: Tensor) -> Tensor:
    """The positive x with ``digamma(x) = y``: Newton from the asymptotes (Minka 2000, appendix C).

    Example:
        >>> x = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
        >>> torch.allclose(inverse_digamma(torch.digamma(x)), x, rtol=1e-12)
        True
    """
    euler = -torch.digamma(torch.ones((), dtype=y.dtype, device=y.device))
    # either branch of where is evaluated everywhere: keep the unused one finite
    small = -1 / (y + euler).clamp(max=-1e-3)
    x = torch.where(y >= -2.22, y.clamp(min=-2.22).exp() + 0.5, small)
    for _ in range(6):
        x = x - (torch.digamma(x) - y) / trigamma(x)
    return x


def inverse_trigamma(y: Tensor) -> Tensor:
    """The positive x with ``trigamma(x) = y`` for positive y.

    Example:
        >>> x = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
        >>> torch.allclose(inverse_trigamma(trigamma(x)), x, rtol=1e-12)
        True
    """

    def logs(log_x: Tensor) -> tuple[Tensor, Tensor]:
        x = log_x.exp()
        value = trigamma(x)
        return y.log() - value.log(), -torch.polygamma(2, x) * x / value

    return increasing_root(logs, torch.zeros_like(y)).exp()


@torch.no_grad()
def increasing_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
) -> Tensor:
    """The root of each of many functions of one variable that are below zero left of it.

    Newton steps from ``start``, replaced by bisection wherever they leave the bracket.

    Args:
        function: takes a tensor like ``start``, returns values and derivatives.
        start: a first guess; the bracket grows from it until it holds the root.

    Example:
        >>> target = torch.tensor([2.0, 9.0], dtype=torch.float64)
        >>> increasing_root(lambda x: (x.pow(3) - target, 3 * x * x), torch.ones_like(target))
        tensor([1.2599, 2.0801], dtype=torch.float64)
    """
    lower, upper = _bracket(function, start)
    x = start
    for _ in range(_STEPS):
        value, slope = function(x)
        lower = torch.where(value < 0, x, lower)
        upper = torch.where(value > 0, x, upper)
        step = x - value / slope
        inside = (step >= lower) & (step <= upper)
        new = torch.where(inside, step, (lower + upper) / 2)
        done = ((new - x).abs() <= 1e-15 * (1 + x.abs())).all()
        x = new
        if done:
            break
    return x


def _bracket(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
) -> tuple[Tensor, Tensor]:
    lower, upper = start - 1, start + 1
    width = 1.0
    for _ in range(10):
        too_high, too_low = function(lower)[0] > 0, function(upper)[0] < 0
        if not (too_high.any() or too_low.any()):
            break
        width *= 2
        lower = torch.where(too_high, lower - width, lower)
        upper = torch.where(too_low, upper + width, upper)
    return lower, upper
