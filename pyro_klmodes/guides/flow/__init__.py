"""Normalizing flows: a base density, trainable layers, and tails."""

from pyro_klmodes.guides.flow.architectures import (
    Architecture,
    Autoregressive,
    Coupling,
    Direction,
)
from pyro_klmodes.guides.flow.bases import Base, GaussianBase, MixtureBase, StudentTBase
from pyro_klmodes.guides.flow.family import FlowFamily
from pyro_klmodes.guides.flow.guide import AutoFlow
from pyro_klmodes.guides.flow.maps import Affine, Map, Spline
from pyro_klmodes.guides.flow.tails import StudentTailLayer, TailLayer

__all__ = [
    "Affine",
    "Architecture",
    "AutoFlow",
    "Autoregressive",
    "Base",
    "Coupling",
    "Direction",
    "FlowFamily",
    "GaussianBase",
    "Map",
    "MixtureBase",
    "Spline",
    "StudentTBase",
    "StudentTailLayer",
    "TailLayer",
]
