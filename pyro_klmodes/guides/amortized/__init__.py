"""The parts of ``AutoAmortized``: where the data are, the encoder, and what it gives parameters to.

``find`` finds the data among the arguments and observed sites, ``source`` reads them in every call,
``rows`` knows their plates and takes the minibatch. ``encoder`` maps a row to features, ``head``
features to the parameters of a local family (``families``, ``mixture``), and ``guide`` puts them
together. ``gap`` measures what it costs that one network serves all data.
"""

from pyro_klmodes.guides.amortized.encoder import MLP
from pyro_klmodes.guides.amortized.families import (
    DiagonalNormal,
    FullNormal,
    LocalFamily,
    StudentT,
)
from pyro_klmodes.guides.amortized.gap import Gaps, amortisation_gap
from pyro_klmodes.guides.amortized.guide import AutoAmortized
from pyro_klmodes.guides.amortized.mixture import NormalMixture

__all__ = [
    "MLP",
    "AutoAmortized",
    "DiagonalNormal",
    "FullNormal",
    "Gaps",
    "LocalFamily",
    "NormalMixture",
    "StudentT",
    "amortisation_gap",
]
