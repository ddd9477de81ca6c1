"""Coordinate ascent variational inference: exact updates of a mean-field guide from the model."""

from pyro_klmodes.inference.cavi.cavi import CAVI
from pyro_klmodes.inference.cavi.expectation import Expectation
from pyro_klmodes.inference.cavi.report import ConjugacyReport, SiteReport
from pyro_klmodes.inference.cavi.result import CAVIResult
from pyro_klmodes.inference.cavi.schedule import RobbinsMonro

__all__ = [
    "CAVI",
    "CAVIResult",
    "ConjugacyReport",
    "Expectation",
    "RobbinsMonro",
    "SiteReport",
]
