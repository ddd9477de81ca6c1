"""Expectation maximisation on Pyro models.

An E-step weighs fillings of the latents (``exact``, ``monte_carlo``, ``variational``,
``coordinate_ascent``), an M-step
maximises the expected complete-data log-likelihood (``moments`` in closed form, ``optimise`` by a
search), a sweep does both on all data (``sweep``) or batch by batch (``online``), and ``em`` drives
the map from parameters to parameters to its fixed points.
"""

from pyro_klmodes.inference.em.coordinate_ascent import CoordinateAscent
from pyro_klmodes.inference.em.em import EM
from pyro_klmodes.inference.em.exact import Exact
from pyro_klmodes.inference.em.monte_carlo import MonteCarlo
from pyro_klmodes.inference.em.online import StepSizes
from pyro_klmodes.inference.em.optimise import LBFGS
from pyro_klmodes.inference.em.result import EMResult
from pyro_klmodes.inference.em.starts import KMeansPlusPlus, RandomStarts
from pyro_klmodes.inference.em.variational import Variational

__all__ = [
    "EM",
    "LBFGS",
    "CoordinateAscent",
    "EMResult",
    "Exact",
    "KMeansPlusPlus",
    "MonteCarlo",
    "RandomStarts",
    "StepSizes",
    "Variational",
]
