"""One Gaussian or Student-t density over all latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.base import ChainDensity, JointFamily
from pyro_klmodes.guides.joint.radial import Gaussian, Radial, RadialLaw
from pyro_klmodes.guides.joint.scale_base import Scale, TriangularScale
from pyro_klmodes.guides.joint.scales import Full, ScaleStructure

__all__ = ["Elliptical", "EllipticalDensity", "log_prefixes"]

_FULL = Full()
_GAUSSIAN = Gaussian()


def log_prefixes(
    scale: Scale,
    radial: Radial,
    delta: Tensor,  # (*batch, *lead, D)
    ends: Sequence[int],
) -> Tensor:  # (*batch, *lead, len(ends))
    """Log-density of the first e coordinates, for every e and component.

    Leading coordinates of an elliptical vector have the leading block of the scale and, if it is
    Student-t, the same degrees of freedom.
    """
    return _log_density(radial, scale.prefixes(delta, ends), ends)


def _log_density(
    radial: Radial,
    prefixes: tuple[Tensor, Tensor],  # (*batch, len(ends)), (*lead, len(ends))
    ends: Sequence[int],
) -> Tensor:  # (*batch, len(ends))
    squared, volume = prefixes
    sizes = torch.tensor(ends, dtype=squared.dtype, device=squared.device)
    return radial.log_density(squared, volume, sizes)


class EllipticalDensity(ChainDensity):
    """A Gaussian or Student-t density at the current parameters.

    It knows the density of its last draw from the noise, which saves to solve for it.

    Attributes:
        loc: location, ``(D,)``.
        scale: the scale matrix (of a Gaussian, the covariance).
        radial: Gaussian or Student-t.
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        scale: Scale,
        radial: Radial,
    ) -> None:
        self.loc = loc
        self.scale = scale
        self.radial = radial
        #: the last draw, and the scale and residuals that give its density
        self._own: tuple[Tensor, TriangularScale, Tensor] | None = None

    def rsample(
        self,
        shape: torch.Size,
    ) -> Tensor:  # (*shape, D)
        """Draw vectors; they carry gradients of all parameters."""
        shape = torch.Size(shape)
        noise = torch.randn(
            (*shape, self.scale.noise_size), dtype=self.loc.dtype, device=self.loc.device
        )
        stretch = self.radial.stretch(shape).unsqueeze(-1)
        u = self.loc + stretch * self.scale.draw(noise)
        if isinstance(self.scale, TriangularScale):
            self._own = u, self.scale, stretch * noise
        return u

    def log_prefixes(
        self,
        u: Tensor,  # (*batch, D)
        ends: Sequence[int],
    ) -> Tensor:  # (*batch, len(ends))
        """Log-density of the first e coordinates, for every e of ``ends``."""
        if self._own is None or u is not self._own[0]:
            return log_prefixes(self.scale, self.radial, u - self.loc, ends)
        _, scale, residuals = self._own
        prefixes = scale.prefixes_of(residuals[..., : ends[-1]], ends)
        return _log_density(self.radial, prefixes, ends)

    def quantiles(
        self,
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, D)
        """Marginal quantiles of every coordinate."""
        standard = self.radial.standard_quantiles(levels).unsqueeze(-1)
        return self.loc + standard * self.scale.marginal_sd()


class Elliptical(JointFamily):
    """A Gaussian or Student-t density with a diagonal, low-rank or full scale.

    Starts at the given location with independent coordinates (nearly so for a low-rank scale).

    Args:
        loc: initial location, ``(D,)``; its type and device are those of the density.
        init_scale: initial square roots of the diagonal of the scale matrix: a number, or one per
            coordinate, ``(D,)``. For a Gaussian these are standard deviations.
        scale: ``Diagonal()``, ``LowRank(rank)`` or ``Full()``.
        radial: ``Gaussian()`` or ``StudentT(df, learn_df)``.

    Example:
        >>> density = Elliptical(torch.zeros(2), init_scale=0.1).density()
        >>> density.log_prob(torch.zeros(2))
        tensor(2.7673, grad_fn=...)
    """

    def __init__(
        self,
        loc: Tensor,  # (D,)
        *,
        init_scale: float | Tensor = 1.0,
        scale: ScaleStructure = _FULL,
        radial: RadialLaw = _GAUSSIAN,
    ) -> None:
        super().__init__()
        self.loc = PyroParam(loc.detach().clone(), constraints.real)
        self.scale = scale.parameters(init_scale * torch.ones_like(loc))
        self.radial = radial.parameters(loc)

    def density(self) -> EllipticalDensity:
        """The density at the current parameters."""
        return EllipticalDensity(self.loc, self.scale.scale(), self.radial.radial())
