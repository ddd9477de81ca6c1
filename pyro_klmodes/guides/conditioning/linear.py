"""Conditionals whose location and log-scale are linear in the sites before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pyro.distributions import constraints
from pyro.nn import PyroParam
from torch import Tensor

from pyro_klmodes.guides.conditioning.coupling import Coupling, PerElement
from pyro_klmodes.guides.conditioning.given import Conditional, Given
from pyro_klmodes.guides.conditioning.upstream import Inputs

__all__ = ["Linear", "LinearConditional", "triangle", "weighted"]

_PER_ELEMENT = PerElement()


@dataclass(frozen=True)
class Linear:
    """Location and log-scale are linear in the values before.

    In the site's own units, ``u = centre + spread * v`` with parameters ``centre`` and ``spread``,
    and with the values x before it in theirs,

        v ~ Normal(W x, diag(exp(2 V x)) L L')

    with L unit lower triangular between the d coordinates of the site. For G coordinates before,
    ``d (2 + 2 G + (d - 1) / 2)`` numbers. All Gaussian posteriors are of this form, with V = 0, as
    far as the guide lets sites depend on each other.

    Args:
        coupling: ``PerElement()`` or ``Shared()`` slopes W, V and L in plates.

    Example:
        >>> Linear()
        Linear(coupling=PerElement())
    """

    coupling: Coupling = _PER_ELEMENT

    def parameters(
        self,
        loc: Tensor,  # (*batch, d)
        scale: float,
        inputs: int,
    ) -> Conditional:
        """Parameters that start independent of the values before, of which there are G."""
        return LinearConditional(loc, scale, inputs, self.coupling)


class LinearConditional(Conditional):
    """The parameters of ``Linear`` for one site."""

    def __init__(
        self,
        loc: Tensor,  # (*batch, d)
        scale: float,
        inputs: int,
        coupling: Coupling,
    ) -> None:
        super().__init__()
        batch = coupling.batch(loc.shape[:-1])
        offsets = torch.stack([loc, torch.full_like(loc, math.log(scale))], -2)
        self.offsets = PyroParam(offsets.detach(), constraints.real, event_dim=2)
        self.lower = triangle(loc, batch)
        if inputs:
            slopes = loc.new_zeros((*batch, 2, loc.shape[-1], inputs))
            self.slopes = PyroParam(slopes, constraints.real, event_dim=3)

    def shift(
        self,
        x: Tensor,  # (*batch, G)
    ) -> Tensor:  # (*batch, 2, d)
        """Of location and log-scale, in the site's units."""
        return weighted(self.slopes, x)

    def given(
        self,
        inputs: Inputs | None,
    ) -> Given:
        """The normal at values of the sites before."""
        centre, log_spread = self.offsets.unbind(-2)
        if inputs is None:
            return Given(centre, log_spread, self.lower, centre, log_spread)
        loc, log_scale = self.shift(inputs.x).unbind(-2)
        loc = centre + log_spread.exp() * loc
        return Given(loc, log_spread + log_scale, self.lower, centre, log_spread)


def weighted(
    slopes: Tensor,  # (*batch, n, d, G)
    x: Tensor,  # (*batch, G)
) -> Tensor:  # (*batch, n, d)
    """The slopes applied to the values."""
    return torch.einsum("...ndg,...g->...nd", slopes, x)


def triangle(
    loc: Tensor,  # (*batch, d)
    batch: torch.Size,
) -> PyroParam | None:
    """Unit lower triangular factors, ``(*batch, d, d)``; one coordinate needs none."""
    size = loc.shape[-1]
    if size == 1:
        return None
    eye = torch.eye(size, dtype=loc.dtype, device=loc.device).expand(*batch, size, size)
    return PyroParam(eye.contiguous(), constraints.unit_lower_cholesky, event_dim=2)
