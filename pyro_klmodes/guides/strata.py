"""How particles are drawn from a mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.guides.joint.mixture import MixtureDensity
from pyro_klmodes.tracing.shares import Shares
from pyro_klmodes.tracing.surroundings import Surroundings

__all__ = ["Implicit", "MixtureDraws", "Stratified"]


@dataclass(frozen=True)
class Implicit:
    """Every particle is a draw of the mixture, with gradients by implicit reparameterisation."""


@dataclass(frozen=True)
class Stratified:
    """Particles are spread evenly over the components where the loss can take their shares.

    With n_c of K particles from component c each has the share ``pi_c / n_c`` of an average over
    the mixture. Elsewhere, and with fewer particles than components, draws are ``Implicit``.
    """

    def spread(self, density: MixtureDensity, around: Surroundings) -> tuple[Tensor, Shares] | None:
        """Vectors ``(*lead, D)`` and the shares of the particles; None if not asked for."""
        components = len(density.log_weights)
        if around.stratified is None or around.lead[around.stratified] != math.prod(around.lead):
            return None
        K = around.lead[around.stratified]
        if components > K:
            return None
        # in order, so that each of several groups of particles has the same
        chosen = torch.arange(K, device=density.log_weights.device) * components // K
        counts = torch.bincount(chosen, minlength=components)
        log_share = density.log_weights - (counts / K).log()
        u = density.rsample_component(chosen.reshape(around.lead))
        return u, Shares(log_share[chosen], components)


MixtureDraws = Implicit | Stratified
