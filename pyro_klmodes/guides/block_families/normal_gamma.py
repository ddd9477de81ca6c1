"""A precision and normal sites whose covariance is in units of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pyro_klmodes.guides.block_families.base import BlockFamily, BlockParams
from pyro_klmodes.guides.block_families.normals import Normals
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.base import Initial
from pyro_klmodes.guides.site_families.gamma import Gamma

__all__ = ["NormalGamma"]


class NormalGamma(BlockFamily):
    r"""``tau ~ Gamma(concentration, rate)``, ``w | tau ~ Normal(loc, covariance / tau)``.

    The conjugate family of regressions with unknown noise. With several normal sites they are
    jointly normal given tau, see ``Normals``. A tau with an event has an entry for every entry of
    the normal sites, as for diagonal covariances; a tau without is shared by all entries, and the
    covariance of a vector is full. Tau may be in fewer plates than the normal sites.

    Args:
        tau: a positive site.
        latents: real sites, in plates that each hold those before.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro_klmodes.guides import AutoBlocks
        >>> def model():
        ...     tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
        ...     scale = tau.rsqrt()[..., None].expand(*tau.shape, 3)
        ...     pyro.sample("w", dist.Normal(0.0, scale).to_event(1))
        >>> guide = AutoBlocks(model, [("w", "tau")])
        >>> sorted(guide())
        ['tau', 'w']
        >>> {name: tuple(p.shape) for name, p in guide.parameters_of("w").items()}
        {'loc': (3,), 'scale_tril': (3, 3)}
    """

    family = Gamma()

    def __init__(self, tau: Latent, latents: Sequence[Latent]) -> None:
        self.tau = tau
        self.latents = (tau, *latents)
        self.normals = Normals(latents, elementwise=tau.event_dim > 0)

    def initial(self, scale: float) -> dict[str, dict[str, Initial]]:
        """The Gamma that tau has alone; ``scale`` is the deviation of w at its initial value."""
        tau = self.tau
        own = self.family.initial(tau.initial, tau.event_dim, scale, tau.support)
        return {tau.name: own, **self.normals.initial(scale, tau.initial.detach())}

    def distribution(self, site: str, params: BlockParams, drawn: Mapping[str, Tensor]) -> Any:
        """Gamma, or normal given it."""
        tau = self.tau
        if site == tau.name:
            return self.family.distribution(params[site], tau.support, tau.event_dim)
        return self.normals.distribution(site, params, drawn, drawn[tau.name])

    def median(self, site: str, params: BlockParams) -> Tensor:
        """That of the Gamma, or the location."""
        if site == self.tau.name:
            return self.family.median(params[site], self.tau.support)
        return params[site]["loc"].detach().clone()
