"""Several normal sites, each linear in those before it: one normal over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_klmodes.guides.block_families.base import BlockFamily, BlockParams
from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families.base import Initial

__all__ = ["JointNormal", "Normals"]


class Normals:
    r"""Normals ``u_i = loc_i + sum_k slope_ik (u_k - loc_k) + scale_tril_i noise`` over k < i.

    Parameters of site i in its members (``batch``, and ``event`` too if elementwise), with vectors
    of size d_i: ``loc`` ``(*batch, *event)``, ``scale_tril`` ``(*members, d_i, d_i)``, and unless
    it is the first, ``slope`` ``(*members, d_i, d_1 + ... + d_(i-1))``.

    Args:
        latents: real sites, in plates that each hold those before.
        elementwise: whether entries of an event are members by themselves, not a vector.
    """

    def __init__(self, latents: Sequence[Latent], *, elementwise: bool = False) -> None:
        self.latents, self.elementwise = tuple(latents), elementwise
        self.sizes = tuple(x.event_shape[0] if self.is_vector(x) else 1 for x in latents)

    def is_vector(self, latent: Latent) -> bool:
        """Whether the entries of a site's event are one vector."""
        return latent.event_dim == 1 and not self.elementwise

    def vectors(self, latent: Latent, value: Tensor) -> Tensor:
        """A value as ``(*left, *members, d)``."""
        return value if self.is_vector(latent) else value.unsqueeze(-1)

    def values(self, latent: Latent, vectors: Tensor) -> Tensor:
        """The value of ``(*left, *members, d)``."""
        return vectors if self.is_vector(latent) else vectors.squeeze(-1)

    def slopes(self, i: int, slope: Tensor) -> list[Tensor]:
        """The part of a slope that belongs to each site before site i."""
        return list(slope.split(list(self.sizes[:i]), -1)) if i else []

    def initial(
        self,
        scale: float,
        precision: Tensor | None = None,
    ) -> dict[str, dict[str, Initial]]:
        """Independent, with a standard deviation of ``scale``.

        Args:
            scale: of every entry.
            precision: ``(*members)``, what the inverse covariance is in units of; one if None.
        """
        found = {}
        for i, latent in enumerate(self.latents):
            loc = latent.initial.detach().contiguous()
            sd = torch.full_like(self.vectors(latent, loc), scale)
            if precision is not None:
                sd = sd * precision.sqrt().unsqueeze(-1)
            event_dim = latent.event_dim + (1 if self.is_vector(latent) else 2)
            found[latent.name] = {
                "loc": Initial(loc, constraints.real, latent.event_dim),
                "scale_tril": Initial(sd.diag_embed(), constraints.lower_cholesky, event_dim),
            }
            if i:
                slope = sd.new_zeros(*sd.shape, sum(self.sizes[:i]))
                found[latent.name]["slope"] = Initial(slope, constraints.real, event_dim)
        return found

    def distribution(
        self,
        site: str,
        params: BlockParams,
        drawn: Mapping[str, Tensor],
        precision: Tensor | None = None,
    ) -> Any:
        """The normal of a site given those before it, in units of a precision ``(*members)``."""
        i = next(i for i, x in enumerate(self.latents) if x.name == site)
        latent, own = self.latents[i], params[site]
        loc = self.vectors(latent, own["loc"])
        slopes = self.slopes(i, own["slope"]) if i else []
        for before, slope in zip(self.latents, slopes, strict=False):
            away = self.vectors(before, drawn[before.name] - params[before.name]["loc"])
            loc = loc + (slope @ away.unsqueeze(-1)).squeeze(-1)
        tril = own["scale_tril"]
        if precision is not None:
            tril = tril * precision.rsqrt()[..., None, None]
        if self.is_vector(latent):
            return dist.MultivariateNormal(loc, scale_tril=tril)
        normal = dist.Normal(loc.squeeze(-1), tril[..., 0, 0])
        return normal.to_event(latent.event_dim)


class JointNormal(BlockFamily):
    """One normal with full covariance over several real sites.

    In the plates that all sites are in, every element has a normal of its own. A site in more
    plates than another is, given that one, independent in the elements of these plates, which is
    the exact structure of hierarchical models. Parameters are in ``Normals``.

    Args:
        latents: real sites with at most one event dimension, in plates that each hold those before.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_klmodes.guides import AutoBlocks
        >>> def model():
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("groups", 3):
        ...         pyro.sample("z", dist.Normal(mu, 1.0))
        >>> guide = AutoBlocks(model, [("z", "mu")])
        >>> guide()["z"].shape
        torch.Size([3])
        >>> guide.blocks
        (JointNormal('mu', 'z'),)
        >>> {name: tuple(p.shape) for name, p in guide.parameters_of("z").items()}
        {'loc': (3,), 'scale_tril': (3, 1, 1), 'slope': (3, 1, 1)}
    """

    def __init__(self, latents: Sequence[Latent]) -> None:
        self.latents = tuple(latents)
        self.normals = Normals(self.latents)

    def initial(self, scale: float) -> dict[str, dict[str, Initial]]:
        """Independent normals at the initial values."""
        return self.normals.initial(scale)

    def distribution(self, site: str, params: BlockParams, drawn: Mapping[str, Tensor]) -> Any:
        """Normal, with a mean linear in the sites before."""
        return self.normals.distribution(site, params, drawn)

    def median(self, site: str, params: BlockParams) -> Tensor:
        """The mean."""
        return params[site]["loc"].detach().clone()
