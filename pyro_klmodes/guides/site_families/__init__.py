"""Families for single sites of a mean-field guide, most with an exponential-family form."""

from pyro_klmodes.guides.site_families.base import Initial, SiteFamily
from pyro_klmodes.guides.site_families.bernoulli import Bernoulli
from pyro_klmodes.guides.site_families.beta import Beta
from pyro_klmodes.guides.site_families.categorical import Categorical
from pyro_klmodes.guides.site_families.dirichlet import Dirichlet
from pyro_klmodes.guides.site_families.exponential import ExponentialFamily
from pyro_klmodes.guides.site_families.gamma import Gamma
from pyro_klmodes.guides.site_families.log_normal import LogNormal
from pyro_klmodes.guides.site_families.matching import default_for, family_for
from pyro_klmodes.guides.site_families.multivariate_normal import MultivariateNormal
from pyro_klmodes.guides.site_families.normal import Normal
from pyro_klmodes.guides.site_families.normal_mixture import NormalMixture
from pyro_klmodes.guides.site_families.wishart import Wishart

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Dirichlet",
    "ExponentialFamily",
    "Gamma",
    "Initial",
    "LogNormal",
    "MultivariateNormal",
    "Normal",
    "NormalMixture",
    "SiteFamily",
    "Wishart",
    "default_for",
    "family_for",
]
