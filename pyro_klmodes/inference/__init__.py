"""Algorithms that fit a guide: stochastic gradients on any loss."""

from pyro_klmodes.inference.check import check
from pyro_klmodes.inference.check_report import CheckReport
from pyro_klmodes.inference.fit import StepInfo, fit
from pyro_klmodes.inference.result import FitResult

__all__ = ["CheckReport", "FitResult", "StepInfo", "check", "fit"]
