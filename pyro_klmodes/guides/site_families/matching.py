"""Which family goes with which support."""

from __future__ import annotations

from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides.bijection import bijection_to, is_discrete
from pyro_klmodes.guides.site_families.base import SiteFamily
from pyro_klmodes.guides.site_families.bernoulli import Bernoulli
from pyro_klmodes.guides.site_families.beta import Beta
from pyro_klmodes.guides.site_families.categorical import Categorical
from pyro_klmodes.guides.site_families.dirichlet import Dirichlet
from pyro_klmodes.guides.site_families.gamma import Gamma
from pyro_klmodes.guides.site_families.log_normal import LogNormal
from pyro_klmodes.guides.site_families.multivariate_normal import MultivariateNormal
from pyro_klmodes.guides.site_families.normal import Normal
from pyro_klmodes.guides.site_families.supports import unwrapped
from pyro_klmodes.guides.site_families.wishart import Wishart

__all__ = ["default_for", "family_for"]

# the first that accepts a support is its default
_DEFAULTS: tuple[SiteFamily, ...] = (
    LogNormal(),
    Beta(),
    Dirichlet(),
    Wishart(),
    Bernoulli(),
    Categorical(),
)
_ALL: tuple[SiteFamily, ...] = (Normal(), MultivariateNormal(), Gamma(), *_DEFAULTS)


def default_for(support: Constraint, site: str) -> SiteFamily:
    """The family a site gets when none is named.

    LogNormal on the positive half line, Beta on the unit interval, Dirichlet on the simplex,
    Wishart on positive definite matrices, Bernoulli for zero and one, Categorical for 0, ..., n-1,
    and Normal on the unconstrained space for every other continuous support.

    Raises:
        UnsupportedStructure: if no family lives on the support, naming the site and why.

    Example:
        >>> from torch.distributions import constraints
        >>> default_for(constraints.simplex, "weights")
        Dirichlet()
        >>> default_for(constraints.interval(-1.0, 1.0), "correlation")
        Normal()
    """
    for family in _DEFAULTS:
        if family.accepts(support):
            return family
    if is_discrete(support):
        raise UnsupportedStructure(_no_discrete_family(support, site))
    bijection_to(support, site)
    return Normal()


def family_for(support: Constraint, site: str, chosen: SiteFamily | None) -> SiteFamily:
    """The family chosen for a site if it lives on the support; the default if none is.

    Raises:
        InvalidArgument: if the chosen one is no family or has another support, naming those that
            would do.
        UnsupportedStructure: if none is chosen and there is no default.

    Example:
        >>> from torch.distributions import constraints
        >>> family_for(constraints.positive, "rate", Gamma())
        Gamma()
    """
    if chosen is None:
        return default_for(support, site)
    if not isinstance(chosen, SiteFamily):
        raise InvalidArgument(
            f"the family of site '{site}' is {chosen!r}; it must be one of "
            f"pyro_klmodes.guides.site_families, such as {default_for(support, site)!r}."
        )
    if not chosen.accepts(support):
        fitting = [repr(family) for family in _ALL if family.accepts(support)]
        raise InvalidArgument(
            f"site '{site}' has the support {support!r}, on which {chosen!r} does not live; "
            f"choose {' or '.join(fitting) or 'another guide'}."
        )
    return chosen


def _no_discrete_family(support: Constraint, site: str) -> str:
    remedy = (
        "Sum it out in the model, truncate it to a Categorical, or hide it with "
        "pyro.poutine.block and give it a guide of its own in AutoGuideList."
    )
    if isinstance(unwrapped(support), constraints.integer_interval):
        remedy = "A Categorical needs the values 0, ..., n-1 with one n for the whole site."
    if isinstance(unwrapped(support), type(constraints.one_hot)):
        remedy = "Sample it from a Categorical and encode it afterwards."
    return f"site '{site}' has the discrete support {support!r}, which no family lives on. {remedy}"
