"""Algorithms that fit a guide: stochastic gradients on any loss, boosting."""

from pyro_klmodes.inference.boosting import KL, BoostResult, Hellinger, boost
from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.check_report import CheckReport
from pyro_klmodes.inference.fit import StepInfo, fit
from pyro_klmodes.inference.result import FitResult

__all__ = [
    "KL",
    "BoostResult",
    "CheckReport",
    "FitResult",
    "Hellinger",
    "StepInfo",
    "boost",
    "check",
    "fit",
]
