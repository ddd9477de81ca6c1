"""Guides for any existing Pyro model, each latent at one site with its true density."""

from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.distribution import AutoDistribution
from pyro_klmodes.guides.full_rank import AutoFullRank
from pyro_klmodes.guides.joint.modes import FromModes
from pyro_klmodes.guides.joint.radial import Gaussian, StudentT
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank
from pyro_klmodes.guides.joint.spread import At, Sobol, Spread
from pyro_klmodes.guides.joint_guide import JointGuide
from pyro_klmodes.guides.low_rank import AutoLowRank
from pyro_klmodes.guides.mean_field import AutoMeanField
from pyro_klmodes.guides.mixture import AutoMixture
from pyro_klmodes.guides.multivariate_student_t import AutoMultivariateStudentT
from pyro_klmodes.guides.sitewise import SitewiseGuide
from pyro_klmodes.guides.strata import Implicit, Stratified
from pyro_klmodes.guides.student_t import AutoStudentT

__all__ = [
    "At",
    "AutoDistribution",
    "AutoFullRank",
    "AutoLowRank",
    "AutoMeanField",
    "AutoMixture",
    "AutoMultivariateStudentT",
    "AutoStudentT",
    "DensityGuide",
    "Diagonal",
    "FromModes",
    "Full",
    "Gaussian",
    "Implicit",
    "JointGuide",
    "LowRank",
    "SitewiseGuide",
    "Sobol",
    "Spread",
    "Stratified",
    "StudentT",
]
