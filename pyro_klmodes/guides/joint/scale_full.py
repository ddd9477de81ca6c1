"""A full covariance by its Cholesky factor."""

from __future__ import annotations

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.joint.scale_base import (
    ScaleParameters,
    TriangularScale,
    apply,
    as_columns,
)

__all__ = ["FullParameters", "FullScale"]


class FullScale(TriangularScale):
    """``S = L L'`` with ``L = diag(sd) lower``, where ``lower`` has a unit diagonal."""

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
        lower: Tensor,  # (*lead, D, D)
    ) -> None:
        self.sd = sd
        self.lower = lower
        self.noise_size = sd.shape[-1]

    def select(
        self,
        index: Tensor,  # (*shape) long
    ) -> FullScale:
        """The scales of these components."""
        return FullScale(self.sd[index], self.lower[index])

    def draw(
        self,
        noise: Tensor,  # (*batch, *lead, D)
    ) -> Tensor:  # (*batch, *lead, D)
        """``L noise``."""
        return self.sd * apply(self.lower, noise)

    def marginal_sd(self) -> Tensor:  # (*lead, D)
        """The lengths of the rows of L."""
        return self.sd * torch.linalg.vector_norm(self.lower, dim=-1)

    def residuals(
        self,
        delta: Tensor,  # (*batch, *lead, m)
    ) -> Tensor:  # (*batch, *lead, m)
        """A triangular solve with the leading block of L."""
        m = delta.shape[-1]
        block = self.lower[..., :m, :m]
        return as_columns(
            lambda x: torch.linalg.solve_triangular(block, x, upper=False, unitriangular=True),
            delta / self.sd[..., :m],
            self.sd.dim() - 1,
        )

    def pulled_back(
        self,
        direct: Tensor,  # (*batch, C, D)
        carried: Tensor,  # (*batch, C, D)
        residuals: Tensor,  # (*batch, C, D)
    ) -> Tensor:  # (*batch, D, D)
        """Component by component, so that no more than D x D numbers are held per vector."""
        num_components, size = self.sd.shape
        inverses = torch.linalg.solve_triangular(
            self.lower,
            torch.diag_embed(1 / self.sd),
            upper=False,
            unitriangular=True,
        )
        total = direct.new_zeros((*direct.shape[:-2], size, size))
        for c in range(num_components):
            rows = residuals[..., c, :, None] * inverses[c]
            total += direct[..., c, :, None] * inverses[c]
            total[..., 1:, :] -= carried[..., c, 1:, None] * rows.cumsum(-2)[..., :-1, :]
        return total


class FullParameters(ScaleParameters):
    """A positive scale for every row and a unit lower triangular matrix.

    Rows have scales of their own (as in ``AutoMultivariateNormal`` of Pyro), so that a step of an
    optimiser in the triangle means the same for small and for large coordinates.
    """

    def __init__(
        self,
        sd: Tensor,  # (*lead, D)
        lower: Tensor,  # (*lead, D, D)
    ) -> None:
        super().__init__()
        self.sd = PyroParam(sd, constraints.softplus_positive)
        self.lower = PyroParam(lower, constraints.unit_lower_cholesky)

    def scale(self) -> FullScale:
        """The scale at the current parameters."""
        return FullScale(self.sd, self.lower)

    def subset(
        self,
        index: Tensor,  # (n,) long
    ) -> FullParameters:
        """Parameters of their own for some of the components."""
        return FullParameters(self.sd.detach()[index], self.lower.detach()[index])
