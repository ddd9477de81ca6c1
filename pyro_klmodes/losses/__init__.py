"""What users name: a divergence, ready to be passed as ``loss=`` to ``pyro.infer.SVI``."""

from pyro_klmodes.losses.base import DivergenceLoss
from pyro_klmodes.losses.cubo import CUBO
from pyro_klmodes.losses.distilled import Distilled
from pyro_klmodes.losses.f_divergence import FDivergence
from pyro_klmodes.losses.forward_kl import ForwardKL
from pyro_klmodes.losses.iwae import IWAE
from pyro_klmodes.losses.renyi import Renyi
from pyro_klmodes.losses.reverse_kl import ReverseKL
from pyro_klmodes.losses.score_climbing import ScoreClimbing
from pyro_klmodes.losses.separate import Separate
from pyro_klmodes.losses.tail_adaptive import TailAdaptive
from pyro_klmodes.losses.thermodynamic import Thermodynamic
from pyro_klmodes.losses.wake_sleep import WakeSleep

__all__ = [
    "CUBO",
    "IWAE",
    "Distilled",
    "DivergenceLoss",
    "FDivergence",
    "ForwardKL",
    "Renyi",
    "ReverseKL",
    "ScoreClimbing",
    "Separate",
    "TailAdaptive",
    "Thermodynamic",
    "WakeSleep",
]
