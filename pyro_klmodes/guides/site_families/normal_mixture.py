"""A mixture of normals for every datum: several modes in local latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import ReshapeTransform

from pyro_klmodes.errors import InvalidArgument, NotDefined
from pyro_klmodes.guides.joint.diagonal_mixture import DiagonalMixture
from pyro_klmodes.guides.joint.spread import Sobol, Start
from pyro_klmodes.guides.site_families.base import Initial, SiteFamily
from pyro_klmodes.guides.site_families.unconstrained import (
    bijection,
    has_bijection,
    is_elementwise,
    is_real,
    unconstrained_dim,
)

__all__ = ["NormalMixture"]

_SOBOL = Sobol()


@dataclass(frozen=True)
class NormalMixture(SiteFamily):
    r"""``u ~ sum_c pi_c Normal(loc_c, diag(sd_c^2))``, ``x = bijection(u)``, a mixture per datum.

    u is the whole unconstrained event of one element of the site's plates, so that its coordinates
    depend on each other through the component; elements of plates are independent, each with
    parameters of its own, of full size also in minibatches. Parameters ``logits``: ``(*batch, C)``;
    ``locs`` and ``sds``: ``(*batch, C, *unconstrained_event)``. The density is exact. Draws carry
    gradients of all parameters by implicit reparameterisation (Figurnov, Mohamed and Mnih, 2018).

    Starts around the unconstrained value, each component with the initial standard deviation of the
    guide. Components that start at one place would stay together: ``start`` sets them apart, the
    same way for every datum.

    Limits: not an exponential family; no natural parameters. Under reverse KL the gradients have a
    large variance where components lie many standard deviations apart, and a mode that no component
    starts near is not found. Quantiles (by bisection) are given where the bijection acts entry by
    entry.

    Args:
        num_components: number C of components.
        start: where the components start, see ``AutoMixture``; called with the location 0.

    Raises:
        InvalidArgument: if ``num_components`` is not a positive integer, or ``start`` does not
            return one point for each component.

    Example:
        >>> from torch.distributions import constraints
        >>> from pyro_klmodes.guides.joint.spread import At
        >>> family = NormalMixture(2, start=At(torch.tensor([[-1.0], [1.0]])))
        >>> start = family.initial(torch.zeros(3), 0, 0.5, constraints.real)
        >>> {name: tuple(p.value.shape) for name, p in start.items()}
        {'logits': (3, 2), 'locs': (3, 2), 'sds': (3, 2)}
        >>> params = {name: p.value for name, p in start.items()}
        >>> family.quantile(params, torch.tensor([0.25, 0.75]), constraints.real)[:, 0]
        tensor([-1.0000,  1.0000])
    """

    num_components: int = 2
    start: Start = _SOBOL

    def __post_init__(self) -> None:
        C = self.num_components
        if isinstance(C, bool) or not isinstance(C, int) or C < 1:
            raise InvalidArgument(f"num_components={C!r} must be a positive integer.")

    def accepts(self, support: Constraint) -> bool:
        """Any support with a bijection from unconstrained space."""
        return has_bijection(support)

    def initial(
        self,
        value: Tensor,  # (*batch, *event)
        event_dim: int,
        scale: float,
        support: Constraint,
    ) -> dict[str, Initial]:
        """The unconstrained value, and the start around it."""
        transform = bijection(support)
        u = transform.inv(value.detach())
        dim = unconstrained_dim(transform, event_dim)
        batch, event = u.shape[: u.dim() - dim], u.shape[u.dim() - dim :]
        offsets = self._offsets(u.new_zeros(event.numel()), scale).reshape(-1, *event)
        locs = u.unsqueeze(len(batch)) + offsets
        logits = u.new_zeros((*batch, self.num_components))
        return {
            "logits": Initial(logits, constraints.real, 1),
            "locs": Initial(locs, constraints.real, 1 + dim),
            "sds": Initial(torch.full_like(locs, scale), constraints.softplus_positive, 1 + dim),
        }

    def distribution(
        self, params: Mapping[str, Tensor], support: Constraint, event_dim: int
    ) -> Any:
        """A mixture of normal vectors, pushed through the bijection."""
        log_weights, locs, sds, event = _flat(params)
        base = DiagonalMixture(log_weights, locs, sds)
        transforms: list[Transform] = []
        if len(event) != 1:
            transforms.append(ReshapeTransform(locs.shape[-1:], event))
        if not is_real(support):
            transforms.append(bijection(support))
        return dist.TransformedDistribution(base, transforms) if transforms else base

    def quantile(
        self,
        params: Mapping[str, Tensor],
        levels: Tensor,  # (Q,)
        support: Constraint,
    ) -> Tensor:  # (Q, *batch, *event)
        """The bijection of the mixture's quantile, or of the opposite one where it decreases."""
        transform = bijection(support)
        if not is_elementwise(transform):
            raise NotDefined(self._no_quantiles())
        log_weights, locs, sds, event = _flat(params)
        mixture = DiagonalMixture(log_weights.detach(), locs.detach(), sds.detach())
        u, mirrored = (
            mixture.quantiles(p.to(locs)).reshape(-1, *locs.shape[:-2], *event)
            for p in (levels, 1 - levels)
        )
        centre = locs.detach().mean(-2).reshape(*locs.shape[:-2], *event)
        increasing = transform(centre + 1) >= transform(centre)
        return torch.where(increasing, transform(u), transform(mirrored))

    def _offsets(
        self,
        origin: Tensor,  # (E,)
        scale: float,
    ) -> Tensor:  # (C, E)
        offsets = self.start(origin, self.num_components, scale).detach()
        expected = (self.num_components, len(origin))
        if tuple(offsets.shape) != expected or not bool(offsets.isfinite().all()):
            raise InvalidArgument(
                f"start={self.start!r} returned a tensor of shape {tuple(offsets.shape)}; it must "
                f"return finite numbers of shape {expected}: components by the unconstrained "
                "coordinates of one datum."
            )
        return offsets


def _flat(
    params: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor, Tensor, torch.Size]:  # (*batch, C), (*batch, C, E) twice, event
    logits, locs = params["logits"], params["locs"]
    event = locs.shape[logits.dim() :]
    flat = (*locs.shape[: logits.dim()], -1)
    return torch.log_softmax(logits, -1), locs.reshape(flat), params["sds"].reshape(flat), event
