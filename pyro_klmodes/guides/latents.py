"""The latent sites of a model, and the map of each to and from unconstrained space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.util import sum_rightmost
from pyro.ops.tensor_utils import periodic_repeat
from torch import Tensor
from torch.distributions.transforms import IndependentTransform

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.guides.bijection import bijection_to, is_discrete
from pyro_klmodes.tracing.prototype import Prototype

__all__ = ["Latent", "latents_of"]


@dataclass(frozen=True)
class Latent:
    """One latent site.

    Attributes:
        name: of the site.
        fn: the site's distribution in the run that the guide was set up with.
        plates: names of its vectorised plates with their batch dimension.
        batch_shape: its batch dimensions, subsampled plates at full size.
        subsampled: names of its plates that see a minibatch.
        initial: where the guide starts, constrained, ``(*batch_shape, *event_shape)``.
    """

    name: str
    fn: Any
    plates: dict[str, int]
    batch_shape: torch.Size
    subsampled: frozenset[str]
    initial: Tensor

    @property
    def discrete(self) -> bool:
        """Whether its values are counted and not measured."""
        return is_discrete(self.fn.support)

    @property
    def support(self) -> Any:
        """The constraint on its values."""
        return self.fn.support

    @property
    def event_dim(self) -> int:
        """Number of event dimensions of the constrained value."""
        return self.initial.dim() - len(self.batch_shape)

    @property
    def event_shape(self) -> torch.Size:
        """Event dimensions of the constrained value."""
        return self.initial.shape[len(self.batch_shape) :]

    @cached_property
    def transform(self) -> Any:
        """From unconstrained space to the support.

        Raises:
            UnsupportedStructure: if the support has none, naming the site.
        """
        return bijection_to(self.support, self.name)

    @cached_property
    def unconstrained(self) -> Tensor:  # (*batch_shape, *unconstrained_event_shape)
        """The initial value in unconstrained space."""
        return self.transform.inv(self.initial)

    @property
    def unconstrained_event_shape(self) -> torch.Size:
        """Event dimensions of the unconstrained value."""
        return self.unconstrained.shape[len(self.batch_shape) :]

    @property
    def numel(self) -> int:
        """Number of unconstrained coordinates over all data."""
        return math.prod(self.batch_shape) * math.prod(self.unconstrained_event_shape)

    def log_det(
        self,
        u: Tensor,  # (*batch, *unconstrained_event_shape)
        value: Tensor,  # (*batch, *event_shape)
    ) -> Tensor:  # (*batch)
        """Log absolute Jacobian determinant of the transform at u."""
        elementwise = self.transform.log_abs_det_jacobian(u, value)
        batch_dim = u.dim() - len(self.unconstrained_event_shape)
        return sum_rightmost(elementwise, elementwise.dim() - batch_dim)

    def quantiles(
        self,
        u: Tensor,  # (Q, *batch_shape, *unconstrained_event_shape), at some levels
        mirrored: Tensor,  # the same at one minus the levels
    ) -> Tensor:  # (Q, *batch_shape, *event_shape)
        """Constrained quantiles from unconstrained ones.

        Raises:
            NotDefined: if the transform mixes coordinates, as for simplices and matrices.
        """
        transform = self.transform
        while isinstance(transform, IndependentTransform):
            transform = transform.base_transform
        if transform.domain.event_dim > 0:
            raise NotDefined(
                f"site '{self.name}' has support {self.support}, whose coordinates have no "
                "quantiles of their own; take them of draws: guide.sample(10_000)."
            )
        increasing = torch.as_tensor(transform.sign).to(u.device) > 0
        return torch.where(increasing, transform(u), transform(mirrored))


def latents_of(prototype: Prototype) -> dict[str, Latent]:
    """Describe every latent site of a model."""
    return {name: _latent(name, site) for name, site in prototype.sites.items()}


def _latent(name: str, site: dict[str, Any]) -> Latent:
    value = site["value"].detach()
    event_dim = site["fn"].event_dim
    small = set()
    for frame in site["cond_indep_stack"]:
        if frame.full_size is not None and frame.full_size != frame.size:
            small.add(frame.name)
            # every datum has parameters of its own, also those that the first minibatch lacks
            value = periodic_repeat(value, frame.full_size, frame.dim - event_dim).contiguous()
    return Latent(
        name=name,
        fn=site["fn"],
        plates={f.name: f.dim for f in site["cond_indep_stack"]},
        batch_shape=value.shape[: value.dim() - event_dim],
        subsampled=frozenset(small),
        initial=value,
    )
