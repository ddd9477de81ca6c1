"""Growing a mixture one component at a time."""

from pyro_klmodes.inference.boosting.boost import boost
from pyro_klmodes.inference.boosting.hellinger import Hellinger
from pyro_klmodes.inference.boosting.kl import KL
from pyro_klmodes.inference.boosting.result import BoostResult, Round

__all__ = ["KL", "BoostResult", "Hellinger", "Round", "boost"]
