"""A normal in unconstrained space, as the distribution of a site."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.conditioning.coordinates import as_event, flat
from pyro_klmodes.guides.conditioning.given import Given
from pyro_klmodes.guides.joint.scale_base import apply, as_columns
from pyro_klmodes.guides.latents import Latent

__all__ = ["SiteNormal"]

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class SiteNormal(TorchDistribution):
    """``value = transform(u)`` with u normal, its coordinates coupled by a triangular factor.

    It has no closed divergence to other distributions, so that losses which look for one (Pyro's
    ``TraceMeanField_ELBO``) take the log-densities of draws, which is right for any dependence
    between the sites.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, latent: Latent, given: Given) -> None:
        self.latent = latent
        self.given = given
        # remembers the last pair, so that a draw need not be mapped back; None is the identity
        self.transform = None if _is_real(latent.support) else latent.transform.with_cache()
        batch = torch.broadcast_shapes(given.loc.shape[:-1], given.log_scale.shape[:-1])
        super().__init__(batch, latent.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the model's site."""
        return self.latent.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> SiteNormal:
        """The same normal for more draws, which are mapped back by the same transform."""
        new = type(self).__new__(type(self))
        new.latent, new.given, new.transform = self.latent, self.given, self.transform
        super(SiteNormal, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw values, which carry gradients."""
        loc, log_scale, lower = self.given[:3]
        shape = torch.Size(sample_shape) + self.batch_shape + loc.shape[-1:]
        noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
        if lower is not None:
            noise = apply(lower, noise)
        return self._value(loc + log_scale.exp() * noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density over the support."""
        loc, log_scale, lower = self.given[:3]
        u = self.unconstrained(value)
        noise = (u - loc) * (-log_scale).exp()
        if lower is not None:
            lead = lower.dim() - 2
            noise = as_columns(lambda x: _solve(lower, x), noise, lead)
        log_prob = -(0.5 * noise.square() + log_scale + _HALF_LOG_2_PI).sum(-1)
        if self.transform is None:
            return log_prob
        return log_prob - self.latent.log_det(as_event(self.latent, u), value)

    def median(self) -> Tensor:
        """The transform of the location: the median where the transform acts on each coordinate."""
        return self._value(self.given.loc.expand(*self.batch_shape, -1))

    def unconstrained(
        self,
        value: Tensor,  # (*batch, *event_shape)
    ) -> Tensor:  # (*batch, d)
        """The unconstrained coordinates of a value, in one dimension."""
        u = value if self.transform is None else self.transform.inv(value)
        return flat(self.latent, u)

    def _value(
        self,
        u: Tensor,  # (*batch, d)
    ) -> Tensor:  # (*batch, *event_shape)
        u = as_event(self.latent, u)
        return u if self.transform is None else self.transform(u)


def _is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))


def _solve(
    lower: Tensor,  # (*lead, d, d)
    columns: Tensor,  # (*lead, d, n)
) -> Tensor:  # (*lead, d, n)
    return torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
