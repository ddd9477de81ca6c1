"""A diagonal covariance: independent coordinates."""

from __future__ import annotations

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.scale_base import ScaleParameters, TriangularScale

__all__ = ["DiagonalParameters", "DiagonalScale"]


class DiagonalScale(TriangularScale):
    """``S = diag(sd^2)``."""

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> None:
        self.sd = sd
        self.noise_size = sd.shape[-1]

    def select(
        self,
        index: Tensor,  # (*shape) long
    ) -> DiagonalScale:
        """The scales of these components."""
        return DiagonalScale(self.sd[index])

    def draw(
        self,
        noise: Tensor,  # (*batch, *lead, D)
    ) -> Tensor:  # (*batch, *lead, D)
        """The noise times the standard deviations."""
        return self.sd * noise

    def marginal_sd(self) -> Tensor:  # (*lead, D)
        """The standard deviations."""
        return self.sd

    def residuals(
        self,
        delta: Tensor,  # (*batch, *lead, m)
    ) -> Tensor:  # (*batch, *lead, m)
        """Every coordinate over its standard deviation."""
        return delta / self.sd[..., : delta.shape[-1]]

    def pulled_back(
        self,
        direct: Tensor,  # (*batch, C, D)
        carried: Tensor,  # (*batch, C, D)
        residuals: Tensor,  # (*batch, C, D)
    ) -> Tensor:  # (*batch, D, D)
        """One product of D x C and C x D matrices for each vector."""
        history = carried.mT @ (residuals / self.sd)
        return torch.diag_embed((direct / self.sd).sum(-2)) - history.tril(-1)


class DiagonalParameters(ScaleParameters):
    """Standard deviations, positive through the softplus function."""

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
    ) -> None:
        super().__init__()
        self.sd = PyroParam(sd, constraints.softplus_positive)

    def scale(self) -> DiagonalScale:
        """The scale at the current parameters."""
        return DiagonalScale(self.sd)

    def subset(
        self,
        index: Tensor,  # (n,) long
    ) -> DiagonalParameters:
        """Parameters of their own for some of the components."""
        return DiagonalParameters(self.sd.detach()[index])
