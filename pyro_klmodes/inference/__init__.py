"""Algorithms that fit a guide: stochastic gradients on any loss, boosting."""

from pyro_klmodes.inference.aggressive import AggressiveInference
from pyro_klmodes.inference.averaging import AverageIterates
from pyro_klmodes.inference.batches import by_index
from pyro_klmodes.inference.boosting import KL, BoostResult, Hellinger, boost
from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.check_report import CheckReport
from pyro_klmodes.inference.checkpoint import Checkpoint
from pyro_klmodes.inference.evaluate import Evaluate, Evaluation
from pyro_klmodes.inference.fit import StepInfo, fit
from pyro_klmodes.inference.frozen_gradient import FrozenGradient, frozen_gradient
from pyro_klmodes.inference.gradient_snr import GradientSNR, gradient_snr
from pyro_klmodes.inference.held_out import HeldOutBound, held_out_bound
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.inference.stopping import StopWhenConverged

__all__ = [
    "KL",
    "AggressiveInference",
    "AverageIterates",
    "BoostResult",
    "CheckReport",
    "Checkpoint",
    "Evaluate",
    "Evaluation",
    "FitResult",
    "FrozenGradient",
    "GradientSNR",
    "HeldOutBound",
    "Hellinger",
    "StepInfo",
    "StopWhenConverged",
    "boost",
    "by_index",
    "check",
    "fit",
    "frozen_gradient",
    "gradient_snr",
    "held_out_bound",
]
