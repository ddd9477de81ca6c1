"""Everything that runs models and guides: from a pair to log-weights.

The only home of Pyro's effect handlers. A pair is surveyed once (``survey``), run with its handlers
(``runs``), its sites become terms (``terms``, ``enumeration``), and the terms log-weights
(``draws``).
"""

from pyro_klmodes.tracing.density import log_density
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.public import draws

__all__ = ["Draws", "draws", "log_density"]
