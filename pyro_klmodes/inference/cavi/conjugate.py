"""Which family a site is conjugate with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_klmodes.guides.latents import Latent
from pyro_klmodes.guides.site_families import (
    Beta,
    Dirichlet,
    Gamma,
    MultivariateNormal,
    Normal,
    SiteFamily,
    Wishart,
    default_for,
)
from pyro_klmodes.guides.site_families.supports import (
    is_positive,
    is_positive_definite,
    is_simplex,
    is_unit_interval,
)
from pyro_klmodes.inference.cavi.structure import Found, Probe

__all__ = ["conjugate_family"]


def _candidates(latent: Latent) -> Sequence[SiteFamily]:
    """Families that a site could be conjugate with, the most natural first."""
    support = latent.support
    if latent.discrete:
        return (default_for(support, latent.name),)
    special: tuple[tuple[Any, SiteFamily], ...] = (
        (is_positive, Gamma()),
        (is_unit_interval, Beta()),
        (is_simplex, Dirichlet()),
        (is_positive_definite, Wishart()),
    )
    own = [family for fits, family in special if fits(support)]
    default = default_for(support, latent.name)
    fallback = Normal() if own and default in own else default
    if MultivariateNormal().accepts(support) and latent.event_shape[0] > 1:
        return (Normal(), MultivariateNormal())
    return (*own, fallback)


def conjugate_family(latent: Latent, probe: Probe) -> tuple[SiteFamily, Found]:
    """The family in which a site is conjugate; a normal in unconstrained space if there is none.

    Vectors whose entries meet in quadratic terms get a normal with full covariance.

    Raises:
        UnsupportedStructure: if nothing lives on the support.
    """
    options = _candidates(latent)
    for family in options:
        found = probe(latent.name, family)
        if isinstance(family, Normal) and len(options) > 1 and options[0] is family:
            last = len(latent.batch_shape)  # the entries of the vector
            if found.bent or set(found.meeting) != {last}:
                return family, found
            continue
        alone = not found.meeting or isinstance(family, Normal | MultivariateNormal)
        if latent.discrete or (not found.bent and alone):
            return family, found
    return family, found
