"""Compiled execution: the step of a loss as a graph, cleaned, verified and compiled."""

from pyro_klmodes.engine.accelerate import Engine
from pyro_klmodes.engine.choose import Choice, check_choice
from pyro_klmodes.engine.explanation import Explanation
from pyro_klmodes.engine.moments import Moments

__all__ = ["Choice", "Engine", "Explanation", "Moments", "check_choice"]
