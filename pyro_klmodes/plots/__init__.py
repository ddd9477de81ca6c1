"""The figures of a comparison and of a training, one per file, for light and for dark pages.

This folder is the only one that imports matplotlib. ArviZ computes intervals and densities (through
`inference_data`); the drawing is done here on figures of their own, so nothing touches the caller's
pyplot state or backend.
"""

from pyro_klmodes.plots.canvas import png
from pyro_klmodes.plots.density import density
from pyro_klmodes.plots.evidence import evidence
from pyro_klmodes.plots.forest import forest
from pyro_klmodes.plots.khat import khat
from pyro_klmodes.plots.learning import learning
from pyro_klmodes.plots.modes import modes
from pyro_klmodes.plots.pair import pair
from pyro_klmodes.plots.pictures import pictures
from pyro_klmodes.plots.theme import DARK, LIGHT, Theme
from pyro_klmodes.plots.training import training

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "density",
    "evidence",
    "forest",
    "khat",
    "learning",
    "modes",
    "pair",
    "pictures",
    "png",
    "training",
]
