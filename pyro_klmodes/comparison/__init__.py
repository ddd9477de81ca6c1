"""Several inferences of one model side by side."""

from pyro_klmodes.comparison.compare import compare
from pyro_klmodes.comparison.fit_pairs import fit_pairs
from pyro_klmodes.comparison.result import Comparison

__all__ = ["Comparison", "compare", "fit_pairs"]
