"""The conformance suite: laws that an objective, a loss or a guide must obey.

Every law is a function that returns nothing and raises ``AssertionError`` with the numbers. Use
them over a registry of constructors, one parametrised test per law:

    >>> from pyro_klmodes.objectives import ReverseKL
    >>> for law in OBJECTIVE_LAWS:
    ...     law(ReverseKL())
"""

from pyro_klmodes.testing.gradients import (
    assert_same_mean,
    assert_vanishes_at_posterior,
    gradient_samples,
)
from pyro_klmodes.testing.guides import (
    GUIDE_LAWS,
    assert_integrates_to_one,
)
from pyro_klmodes.testing.losses import LOSS_LAWS
from pyro_klmodes.testing.objectives import OBJECTIVE_LAWS

__all__ = [
    "GUIDE_LAWS",
    "LOSS_LAWS",
    "OBJECTIVE_LAWS",
    "assert_integrates_to_one",
    "assert_same_mean",
    "assert_vanishes_at_posterior",
    "gradient_samples",
]
