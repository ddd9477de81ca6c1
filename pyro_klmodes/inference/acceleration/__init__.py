"""Accelerators for fixed-point maps such as EM: many starts at once, and torch is all they know."""

from pyro_klmodes.inference.acceleration.anderson import Anderson
from pyro_klmodes.inference.acceleration.base import Accelerator, Point
from pyro_klmodes.inference.acceleration.iterate import iterate
from pyro_klmodes.inference.acceleration.plain import Plain
from pyro_klmodes.inference.acceleration.squarem import Squarem
from pyro_klmodes.inference.acceleration.trajectory import Progress, Trajectory

__all__ = [
    "Accelerator",
    "Anderson",
    "Plain",
    "Point",
    "Progress",
    "Squarem",
    "Trajectory",
    "iterate",
]
