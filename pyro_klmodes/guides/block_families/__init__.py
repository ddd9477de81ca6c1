"""Families for groups of sites that share one factor of a guide."""

from pyro_klmodes.guides.block_families.base import BlockFamily
from pyro_klmodes.guides.block_families.matching import block_families, block_family_for
from pyro_klmodes.guides.block_families.normal_gamma import NormalGamma
from pyro_klmodes.guides.block_families.normal_wishart import NormalWishart
from pyro_klmodes.guides.block_families.normals import JointNormal
from pyro_klmodes.guides.block_families.states import JointStates

__all__ = [
    "BlockFamily",
    "JointNormal",
    "JointStates",
    "NormalGamma",
    "NormalWishart",
    "block_families",
    "block_family_for",
]
