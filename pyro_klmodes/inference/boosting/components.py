"""Components as a batch: their own densities and draws, without weights."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.elliptical import log_prefixes
from pyro_klmodes.guides.joint.mixture import Mixture, MixtureDensity
from pyro_klmodes.guides.joint.radial import Radial
from pyro_klmodes.guides.joint.scale_base import Scale

__all__ = ["Components", "copy_row"]


class Components:
    """C densities at the current values of their parameters."""

    def __init__(
        self,
        locs: Tensor,  # (C, D)
        scale: Scale,
        radial: Radial,
    ) -> None:
        self.locs, self.scale, self.radial = locs, scale, radial

    @classmethod
    def of(cls, family: Mixture) -> Components:
        """The components of a mixture, with their graph."""
        density: MixtureDensity = family.density()
        return cls(density.component_locs, density.scale, density.radial)

    def first(self, count: int) -> Components:
        """The first so many."""
        index = torch.arange(count, device=self.locs.device)
        return Components(self.locs[index], self.scale.select(index), self.radial)

    def draw(self, count: int) -> Tensor:  # (count, C, D)
        """So many reparameterised draws of every component."""
        C = len(self.locs)
        noise = self.locs.new_empty(count, C, self.scale.noise_size).normal_()
        stretch = self.radial.stretch(torch.Size([count, C])).unsqueeze(-1)
        return self.locs + stretch * self.scale.draw(noise)

    def log_own(
        self,
        u: Tensor,  # (*batch, C, D)
    ) -> Tensor:  # (*batch, C)
        """The density of each component at the vector that is its own."""
        D = u.shape[-1]
        return log_prefixes(self.scale, self.radial, u - self.locs, [D]).squeeze(-1)

    def log_each(
        self,
        u: Tensor,  # (*batch, D)
    ) -> Tensor:  # (*batch, C)
        """The density of each component at every vector."""
        return self.log_own(u.unsqueeze(-2))


@torch.no_grad()
def copy_row(source: Mixture, i: int, target: Mixture, j: int) -> None:
    """Let component j of one mixture have the parameters of component i of another."""
    theirs = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if not name.startswith(("logits", "radial")):
            parameter[j] = theirs[name][i]
