"""From features of a datum to the distribution of one of its latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ReshapeTransform

from pyro_klmodes.guides.amortized.families import LocalFamily
from pyro_klmodes.guides.amortized.rows import elements
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.sitewise import constrained

__all__ = ["Head", "Site"]


class Site:
    """A local latent: its family, and the latents before it that its location depends on.

    Attributes:
        latent: the site.
        family: of its distribution.
        size: number D of unconstrained coordinates of one element.
        before: sizes of the sites before it that it depends on, by name.
        elements: elements for each datum, by its plates that are not the data's.
    """

    def __init__(
        self,
        latent: Latent,
        family: LocalFamily,
        before: Mapping[str, int],
        elements: int,
    ) -> None:
        self.latent = latent
        self.family = family
        self.size = latent.unconstrained_event_shape.numel()
        self.before = dict(before)
        self.elements = elements

    @classmethod
    def all_of(
        cls,
        latents: Mapping[str, Latent],  # the local ones, in the order of the model
        family: LocalFamily,
        plates: Mapping[str, int],  # of the data
        *,
        coupled: bool,
    ) -> dict[str, Site]:
        """Describe the local latents."""
        sites: dict[str, Site] = {}
        for name, latent in latents.items():
            before = {
                n: s.size
                for n, s in sites.items()
                if coupled and s.latent.plates.keys() <= latent.plates.keys()
            }
            sites[name] = cls(latent, family, before, elements(latent, plates))
        return sites

    def start(self, scale: float) -> Tensor:  # (P,)
        """Raw parameters at the average of the initial values of the data."""
        each = self.latent.unconstrained.reshape(-1, self.size)
        coefficients = each.new_zeros(self.size * sum(self.before.values()))
        return torch.cat([self.family.start(each.mean(0), scale), coefficients])

    def distribution(
        self,
        raw: Tensor,  # (*batch, P)
        unconstrained: Mapping[str, Tensor],  # of the sites before, (*lead, *batch, D')
    ) -> Any:
        """The distribution over the support of the site."""
        own = raw.shape[-1] - self.size * sum(self.before.values())
        shift = raw.new_zeros(())
        at = own
        for name, size in self.before.items():
            matrix = raw[..., at : at + self.size * size].unflatten(-1, (self.size, size))
            shift = shift + (matrix @ unconstrained[name].unsqueeze(-1)).squeeze(-1)
            at += self.size * size
        base = self.family.distribution(raw[..., :own], self.size, shift)
        shape = self.latent.unconstrained_event_shape
        if len(shape) != 1:
            reshape = ReshapeTransform(torch.Size([self.size]), shape)
            base = dist.TransformedDistribution(base, [reshape])
        return constrained(self.latent, base)

    def flat(
        self,
        value: Tensor,  # (*batch, *event_shape)
    ) -> Tensor:  # (*batch, D)
        """The unconstrained coordinates of a value."""
        u: Tensor = self.latent.transform.inv(value)
        event_dim = len(self.latent.unconstrained_event_shape)
        return u.reshape(*u.shape[: u.dim() - event_dim], self.size)

    def median(
        self,
        raw: Tensor,  # (*batch, P)
    ) -> Tensor:  # (*batch, *event_shape)
        """The median of every unconstrained coordinate, transformed to the support."""
        middle = self.family.quantiles(raw, self.size, raw.new_tensor([0.5]))[0]
        value: Tensor = self.latent.transform(self._shaped(middle))
        return value

    def quantiles(
        self,
        raw: Tensor,  # (*batch, P)
        levels: Tensor,  # (Q,)
    ) -> Tensor:  # (Q, *batch, *event_shape)
        """Quantiles of the values.

        Raises:
            NotDefined: if they have no closed form.
        """
        ends = levels, 1 - levels
        u, mirrored = (self._shaped(self.family.quantiles(raw, self.size, x)) for x in ends)
        return self.latent.quantiles(u, mirrored)

    def _shaped(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, *unconstrained_event_shape)
        return u.reshape(*u.shape[:-1], *self.latent.unconstrained_event_shape)


class Head(nn.Module):
    """An affine map from features to the raw parameters of a site.

    It starts with zero weights, so that all data start with the same distribution.
    """

    def __init__(
        self,
        num_features: int,
        start: Tensor,  # (P,)
        elements: int,
    ) -> None:
        super().__init__()
        self.elements = elements
        self.linear = nn.Linear(
            num_features, elements * len(start), dtype=start.dtype, device=start.device
        )
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(start.repeat(elements))

    def forward(
        self,
        features: Tensor,  # (n, num_features)
    ) -> Tensor:  # (n, elements, P)
        """The raw parameters of every row and element."""
        raw: Tensor = self.linear(features.to(self.linear.weight))
        return raw.unflatten(-1, (self.elements, -1))
