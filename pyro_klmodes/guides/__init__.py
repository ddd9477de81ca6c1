"""Guides for any existing Pyro model, each latent at one site with its true density."""

from pyro_klmodes.guides.amortized import MLP, AutoAmortized
from pyro_klmodes.guides.autoregressive import AutoAutoregressive
from pyro_klmodes.guides.base import DensityGuide
from pyro_klmodes.guides.blocks import AutoBlocks
from pyro_klmodes.guides.conditioning import Linear, Network, PerElement, Shared
from pyro_klmodes.guides.distribution import AutoDistribution
from pyro_klmodes.guides.flow import (
    Affine,
    AutoFlow,
    Autoregressive,
    Coupling,
    Direction,
    GaussianBase,
    MixtureBase,
    Spline,
    StudentTailLayer,
    StudentTBase,
    TailLayer,
)
from pyro_klmodes.guides.full_rank import AutoFullRank
from pyro_klmodes.guides.hierarchical import AutoHierarchical
from pyro_klmodes.guides.joint.modes import FromModes
from pyro_klmodes.guides.joint.radial import Gaussian, StudentT
from pyro_klmodes.guides.joint.scales import Diagonal, Full, LowRank
from pyro_klmodes.guides.joint.spread import At, Sobol, Spread
from pyro_klmodes.guides.joint.stretched import Stretched
from pyro_klmodes.guides.joint_guide import JointGuide
from pyro_klmodes.guides.low_rank import AutoLowRank
from pyro_klmodes.guides.mean_field import AutoMeanField
from pyro_klmodes.guides.mixture import AutoMixture
from pyro_klmodes.guides.multivariate_student_t import AutoMultivariateStudentT
from pyro_klmodes.guides.sitewise import SitewiseGuide
from pyro_klmodes.guides.strata import Implicit, Stratified
from pyro_klmodes.guides.student_t import AutoStudentT

__all__ = [
    "MLP",
    "Affine",
    "At",
    "AutoAmortized",
    "AutoAutoregressive",
    "AutoBlocks",
    "AutoDistribution",
    "AutoFlow",
    "AutoFullRank",
    "AutoHierarchical",
    "AutoLowRank",
    "AutoMeanField",
    "AutoMixture",
    "AutoMultivariateStudentT",
    "AutoStudentT",
    "Autoregressive",
    "Coupling",
    "DensityGuide",
    "Diagonal",
    "Direction",
    "FromModes",
    "Full",
    "Gaussian",
    "GaussianBase",
    "Implicit",
    "JointGuide",
    "Linear",
    "LowRank",
    "MixtureBase",
    "Network",
    "PerElement",
    "Shared",
    "SitewiseGuide",
    "Sobol",
    "Spline",
    "Spread",
    "Stratified",
    "Stretched",
    "StudentT",
    "StudentTBase",
    "StudentTailLayer",
    "TailLayer",
]
