"""What boosting leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pyro_klmodes.inference.result import FitResult

__all__ = ["BoostResult", "Round"]


@dataclass(frozen=True)
class Round:
    """The mixture after a component was added.

    Attributes:
        weights: of the components so far, ``(i,)``. By ``KL`` those of a mixture; by ``Hellinger``
            the coefficients of the square roots, whose squared sum is the density.
        bound: an estimate of a lower bound of the log evidence, log Z. By ``KL`` the ELBO, so that
            ``KL(q || p) = log Z - bound``; by ``Hellinger`` the Renyi bound of order one half, so
            that ``H^2 = 1 - exp((bound - log Z) / 2)``.
    """

    weights: Tensor
    bound: float


@dataclass(frozen=True, kw_only=True)
class BoostResult(FitResult):
    """A mixture grown component by component; the ``losses`` are the negated bounds.

    Attributes:
        history: one entry for each component.
    """

    history: tuple[Round, ...] = field(repr=False)
