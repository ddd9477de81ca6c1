"""What users name: a divergence, ready to be passed as ``loss=`` to ``pyro.infer.SVI``."""

from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.losses.cubo import CUBO
from pyro_klmodes.losses.f_divergence import FDivergence
from pyro_klmodes.losses.forward_kl import ForwardKL
from pyro_klmodes.losses.iwae import IWAE
from pyro_klmodes.losses.renyi import Renyi
from pyro_klmodes.losses.reverse_kl import ReverseKL
from pyro_klmodes.losses.tail_adaptive import TailAdaptive
from pyro_klmodes.losses.thermodynamic import Thermodynamic

__all__ = [
    "CUBO",
    "IWAE",
    "DivergenceLoss",
    "FDivergence",
    "ForwardKL",
    "Renyi",
    "ReverseKL",
    "TailAdaptive",
    "Thermodynamic",
]
