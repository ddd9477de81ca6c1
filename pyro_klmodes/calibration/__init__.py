"""Is an inference right on average? Simulate data from the model, refit, and rank the truth."""

from pyro_klmodes.calibration.calibrate import sbc, vsbc
from pyro_klmodes.calibration.result import Calibration

__all__ = ["Calibration", "sbc", "vsbc"]
