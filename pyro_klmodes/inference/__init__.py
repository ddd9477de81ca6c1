"""Algorithms that fit: stochastic gradients on any loss, boosting, EM, coordinate ascent."""

from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem
from pyro_klmodes.inference.aggressive import AggressiveInference
from pyro_klmodes.inference.averaging import AverageIterates
from pyro_klmodes.inference.batches import by_index
from pyro_klmodes.inference.boosting import KL, BoostResult, Hellinger, boost
from pyro_klmodes.inference.cavi import CAVI, CAVIResult, ConjugacyReport, RobbinsMonro
from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.check_report import CheckReport
from pyro_klmodes.inference.checkpoint import Checkpoint
from pyro_klmodes.inference.em import (
    EM,
    LBFGS,
    CoordinateAscent,
    EMResult,
    Exact,
    KMeansPlusPlus,
    MonteCarlo,
    RandomStarts,
    StepSizes,
    Variational,
)
from pyro_klmodes.inference.evaluate import Evaluate, Evaluation
from pyro_klmodes.inference.fit import StepInfo, fit
from pyro_klmodes.inference.frozen_gradient import FrozenGradient, frozen_gradient
from pyro_klmodes.inference.gradient_snr import GradientSNR, gradient_snr
from pyro_klmodes.inference.held_out import HeldOutBound, held_out_bound
from pyro_klmodes.inference.linear_response import LinearResponse, linear_response
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.inference.stopping import StopWhenConverged

__all__ = [
    "CAVI",
    "EM",
    "KL",
    "LBFGS",
    "AggressiveInference",
    "Anderson",
    "AverageIterates",
    "BoostResult",
    "CAVIResult",
    "CheckReport",
    "Checkpoint",
    "ConjugacyReport",
    "CoordinateAscent",
    "EMResult",
    "Evaluate",
    "Evaluation",
    "Exact",
    "FitResult",
    "FrozenGradient",
    "GradientSNR",
    "HeldOutBound",
    "Hellinger",
    "KMeansPlusPlus",
    "LinearResponse",
    "MonteCarlo",
    "Plain",
    "RandomStarts",
    "RobbinsMonro",
    "Squarem",
    "StepInfo",
    "StepSizes",
    "StopWhenConverged",
    "Variational",
    "boost",
    "by_index",
    "check",
    "fit",
    "frozen_gradient",
    "gradient_snr",
    "held_out_bound",
    "linear_response",
]
