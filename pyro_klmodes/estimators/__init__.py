"""Gradient estimators, as values: pass one as ``estimator=`` of any loss.

``auto`` picks per guide; ``pathwise``, ``doubly`` (path only), ``gdreg`` (path only for learnable
priors, too), ``score`` (leave-one-out) and ``fixed`` (wake) insist on one and refuse the pairs for
which it is not correct.
"""

from pyro_klmodes.estimators.auto import Auto
from pyro_klmodes.estimators.base import Estimator
from pyro_klmodes.estimators.doubly import Doubly
from pyro_klmodes.estimators.fixed import Fixed
from pyro_klmodes.estimators.gdreg import GDReG
from pyro_klmodes.estimators.mixed import Mixed
from pyro_klmodes.estimators.pathwise import Pathwise
from pyro_klmodes.estimators.score import Score

auto = Auto()
doubly = Doubly()
fixed = Fixed()
gdreg = GDReG()
mixed = Mixed()
pathwise = Pathwise()
score = Score()

__all__ = [
    "Auto",
    "Estimator",
    "auto",
    "doubly",
    "fixed",
    "gdreg",
    "mixed",
    "pathwise",
    "score",
]
