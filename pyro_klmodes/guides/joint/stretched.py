"""A Gaussian whose coordinates have tails of their own, left and right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.base import ChainDensity, JointFamily
from pyro_klmodes.guides.joint.elliptical import log_prefixes
from pyro_klmodes.guides.joint.radial import Gaussian, Radial
from pyro_klmodes.guides.joint.scale_base import Scale, prefix_sums
from pyro_klmodes.guides.joint.scales import Full, ScaleStructure

__all__ = ["Stretched", "StretchedDensity", "StretchedGaussian"]

_FULL = Full()
# Nearly Gaussian, and not so near zero that the parameter would have far to go.
_INITIAL = 0.1


@dataclass(frozen=True)
class Stretched:
    """Tails between Gaussian and exponential for each end of every coordinate, learned.

    Example:
        >>> Stretched()
        Stretched()
    """


class StretchedDensity(ChainDensity):
    """A stretched Gaussian at the current parameters.

    Attributes:
        loc: medians, ``(D,)``.
        scale: the covariance before stretching.
        tails: the stretch on the left and on the right, ``(2, D)``.
        spread: standard deviations before stretching, ``(D,)``.
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        scale: Scale,
        radial: Radial,
        tails: Tensor,  # (2, D)
    ) -> None:
        self.loc = loc
        self.scale = scale
        self.radial = radial
        self.tails = tails
        self.spread = scale.marginal_sd()

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        """Draw vectors; they carry gradients of all parameters."""
        noise = torch.randn(
            (*shape, self.scale.noise_size), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + self.spread * self._stretched(self.scale.draw(noise) / self.spread)

    def log_prefixes(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """Log-density of the first e coordinates, for every e of ``ends``."""
        stretched = (u - self.loc) / self.spread
        # z + a z |z| / 2 = y has the slope sqrt(1 + 2 a |y|) at its solution
        slope = (1 + 2 * self._tail(stretched) * stretched.abs()).sqrt()
        z = 2 * stretched / (1 + slope)
        gaussian = log_prefixes(self.scale, self.radial, z * self.spread, ends)
        return gaussian - prefix_sums(slope[..., : ends[-1]].log(), ends)

    def quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, D)
        """Marginal quantiles of every coordinate."""
        standard = self.radial.standard_quantiles(levels).unsqueeze(-1)
        return self.loc + self.spread * self._stretched(standard)

    def _stretched(
        self,
        z: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        return z * (1 + 0.5 * self._tail(z) * z.abs())

    def _tail(
        self,
        z: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, D)
        left, right = self.tails
        return torch.where(z < 0, left, right)


class StretchedGaussian(JointFamily):
    r"""A Gaussian vector, each coordinate stretched by a function of its own:

    .. math:: u_i = \mu_i + \sigma_i T_i(z_i), \quad z \sim N(0, R), \quad
              T_i(z) = z + a_i z |z| / 2

    with a correlation matrix R and :math:`a_i \ge 0`, one for each side of zero. A side with a = 0
    is Gaussian; else :math:`P(|u_i - \mu_i| > t)` falls off like :math:`e^{-t / (a \sigma_i)}`. The
    logarithm of a scale parameter has such a tail: near zero the posterior of a scale is flat, so
    that its logarithm u has a density like :math:`e^u`, which a Gaussian or Student-t tail on both
    sides does not follow.

    Args:
        loc: initial medians, ``(D,)``.
        init_scale: initial square roots of the diagonal of the covariance before stretching.
        scale: ``Diagonal()``, ``LowRank(rank)`` or ``Full()``.

    Example:
        >>> density = StretchedGaussian(torch.zeros(2)).density()
        >>> density.quantiles(torch.tensor([0.5])).tolist()
        [[0.0, 0.0]]
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        *,
        init_scale: float = 1.0,
        scale: ScaleStructure = _FULL,
    ) -> None:
        super().__init__()
        self.loc = PyroParam(loc.detach().clone(), constraints.real)
        self.scale = scale.parameters(init_scale * torch.ones_like(loc))
        self.radial = Gaussian().parameters(loc)
        tails = loc.new_full((2, len(loc)), _INITIAL)
        self.tails = PyroParam(tails, constraints.softplus_positive)

    def density(self) -> StretchedDensity:
        """The density at the current parameters."""
        return StretchedDensity(self.loc, self.scale.scale(), self.radial.radial(), self.tails)
