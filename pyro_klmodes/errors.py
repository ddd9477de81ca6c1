"""The errors raised on purpose; each message names the place and says what to change."""

from __future__ import annotations

from typing import Any

__all__ = [
    "DegenerateFit",
    "IncompatibleEstimator",
    "InvalidArgument",
    "KLModesError",
    "KLModesWarning",
    "ModelGuideMismatch",
    "NoDensity",
    "NonFiniteLoss",
    "NotDefined",
    "NotMonotone",
    "UnsupportedStructure",
]


class KLModesError(Exception):
    """Base class of all errors of this package."""


class InvalidArgument(KLModesError, ValueError):
    """An argument is of the wrong kind or out of range; the message names it."""


class ModelGuideMismatch(KLModesError, ValueError):
    """Model and guide disagree about their latent sites or the shapes of those sites."""


class UnsupportedStructure(KLModesError, ValueError):
    """The objective has no correct estimate for this structure of plates, scales or enumeration."""


class IncompatibleEstimator(KLModesError, ValueError):
    """The estimator has no correct gradient for this guide or this objective."""


class NoDensity(KLModesError, ValueError):
    """The guide has no density that can be evaluated at given values."""


class NotDefined(KLModesError, NotImplementedError):
    """A quantity has no definition or no closed form for this guide; the message says what has."""


class NotMonotone(KLModesError, ArithmeticError):
    """A step decreased what it increases by construction; the message has the step's details."""


class DegenerateFit(KLModesError, ArithmeticError):
    """A component of a mixture emptied or its covariance became singular; the message names it."""


class NonFiniteLoss(KLModesError, FloatingPointError):
    """A loss, or the log-probability of a site, is not a number; the message names the site.

    Raised by ``fit``, it carries the fit up to that step as ``result``.
    """

    result: Any = None


class KLModesWarning(UserWarning):
    """Something is legitimate but probably not what was meant; the message says what to check."""
