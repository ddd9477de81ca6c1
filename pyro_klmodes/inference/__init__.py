"""Algorithms that fit a guide: stochastic gradients on any loss, boosting."""

from pyro_klmodes.inference.averaging import AverageIterates
from pyro_klmodes.inference.boosting import KL, BoostResult, Hellinger, boost
from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.check_report import CheckReport
from pyro_klmodes.inference.fit import StepInfo, fit
from pyro_klmodes.inference.gradient_snr import GradientSNR, gradient_snr
from pyro_klmodes.inference.result import FitResult
from pyro_klmodes.inference.stopping import StopWhenConverged

__all__ = [
    "KL",
    "AverageIterates",
    "BoostResult",
    "CheckReport",
    "FitResult",
    "GradientSNR",
    "Hellinger",
    "StepInfo",
    "StopWhenConverged",
    "boost",
    "check",
    "fit",
    "gradient_snr",
]
