"""Closed-form M-steps by moment matching, found by running the model."""

from pyro_klmodes.inference.em.moments.closed_form import ClosedForm
from pyro_klmodes.inference.em.moments.outcome import Fault, Maximised

__all__ = ["ClosedForm", "Fault", "Maximised"]
