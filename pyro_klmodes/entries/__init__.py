"""What a comparison knows of each fit: moments, diagnosis, costs; and the reference."""

from pyro_klmodes.entries.entry import Failed, Fitted, Outcome
from pyro_klmodes.entries.moments import Moments, element_names
from pyro_klmodes.entries.reference import Reference
from pyro_klmodes.entries.results import Results, Settings

__all__ = [
    "Failed",
    "Fitted",
    "Moments",
    "Outcome",
    "Reference",
    "Results",
    "Settings",
    "element_names",
]
