r"""The named convex functions of an f-divergence, written for log-ratios.

Each maps :math:`t = \log r` to :math:`f(r)`, where ``r = p(z | x) / q(z)`` and
:math:`D_f = E_q f(r)`. All are zero at ``t = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "FFunction",
    "alpha_divergence",
    "chi_square",
    "forward_kl",
    "hellinger",
    "jensen_shannon",
    "reverse_kl",
    "total_variation",
]


@dataclass(frozen=True)
class FFunction:
    """A convex function in log space, and whether it has a second derivative everywhere.

    Example:
        >>> chi_square(torch.tensor(0.0))
        tensor(0.)
    """

    name: str
    of_log_ratio: Callable[[Tensor], Tensor]
    smooth: bool = True

    def __call__(self, t: Tensor) -> Tensor:
        """``f(exp(t))``, elementwise."""
        return self.of_log_ratio(t)


def _finite(t: Tensor) -> Tensor:
    """Bound t from below where ``exp(t)`` is zero anyway, so that ``t * exp(t)`` is 0, not NaN."""
    return t.clamp(min=math.log(torch.finfo(t.dtype).tiny))


def _forward_kl(t: Tensor) -> Tensor:
    t = _finite(t)
    return t.exp() * t


def _reverse_kl(t: Tensor) -> Tensor:
    return -t


def _chi_square(t: Tensor) -> Tensor:
    return torch.expm1(2.0 * t)


def _hellinger(t: Tensor) -> Tensor:
    return -torch.expm1(0.5 * t)


def _jensen_shannon(t: Tensor) -> Tensor:
    t = _finite(t)
    return 0.5 * (t.exp() * t - (1.0 + t.exp()) * (softplus(t) - math.log(2.0)))


def _total_variation(t: Tensor) -> Tensor:
    return 0.5 * torch.expm1(t).abs()


#: KL(p || q): ``r log r``
forward_kl = FFunction("forward_kl", _forward_kl)
#: KL(q || p): ``-log r``
reverse_kl = FFunction("reverse_kl", _reverse_kl)
#: Pearson's chi-square of p from q: ``r^2 - 1``
chi_square = FFunction("chi_square", _chi_square)
#: squared Hellinger distance: ``1 - sqrt(r)``
hellinger = FFunction("hellinger", _hellinger)
#: Jensen-Shannon: ``(r log r - (1 + r) log((1 + r) / 2)) / 2``
jensen_shannon = FFunction("jensen_shannon", _jensen_shannon)
#: total variation ``|r - 1| / 2``, with a kink at one
total_variation = FFunction("total_variation", _total_variation, smooth=False)


def alpha_divergence(alpha: float) -> FFunction:
    r"""The alpha-divergence :math:`f(r) = (r^{1-\alpha} - 1) / (\alpha (\alpha - 1))`.

    Li and Turner's order, as everywhere in this package: 1 is reverse KL, 0 forward KL, -1 half
    of chi-square, 1/2 four times the squared Hellinger distance. In Amari's (1985) convention the
    same divergence has order ``2 * alpha - 1`` up to sign; in Minka's (2005) ``1 - alpha``.

    Example:
        >>> t = torch.tensor([-1.0, 0.5])
        >>> bool(torch.allclose(alpha_divergence(0.5)(t), 4 * hellinger(t)))
        True
    """
    if alpha == 0.0:
        return forward_kl
    if alpha == 1.0:
        return reverse_kl
    factor = 1.0 / (alpha * (alpha - 1.0))
    return FFunction(f"alpha_{alpha}", partial(_power, factor, 1.0 - alpha))


def _power(factor: float, order: float, t: Tensor) -> Tensor:
    return factor * torch.expm1(order * t)
