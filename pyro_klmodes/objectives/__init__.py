"""Divergences as pure functions of log-weights, ``(K, *local) -> (*local)``, to be minimised."""

from pyro_klmodes.objectives.base import Objective, Part
from pyro_klmodes.objectives.f_divergence import FDivergence
from pyro_klmodes.objectives.forward_kl import ForwardKL
from pyro_klmodes.objectives.given_weights import GivenWeights
from pyro_klmodes.objectives.power_mean import PowerMean
from pyro_klmodes.objectives.reverse_kl import ReverseKL
from pyro_klmodes.objectives.separate import Separate
from pyro_klmodes.objectives.stratified import Stratified
from pyro_klmodes.objectives.tail_adaptive import TailAdaptive
from pyro_klmodes.objectives.thermodynamic import Thermodynamic

__all__ = [
    "FDivergence",
    "ForwardKL",
    "GivenWeights",
    "Objective",
    "Part",
    "PowerMean",
    "ReverseKL",
    "Separate",
    "Stratified",
    "TailAdaptive",
    "Thermodynamic",
]
