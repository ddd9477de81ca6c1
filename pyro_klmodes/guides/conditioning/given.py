"""What a site is drawn from, given the sites before it."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from pyro.nn import PyroModule
from torch import Tensor

from pyro_klmodes.guides.conditioning.upstream import Inputs

__all__ = ["Conditional", "Given"]


class Given(NamedTuple):
    """A normal over the unconstrained coordinates of a site, at some values of the sites before it.

    The site's event is flat, of length d. ``u = loc + exp(log_scale) * (lower @ noise)``.

    Attributes:
        loc: ``(*batch, d)``.
        log_scale: ``(*batch, d)``.
        lower: unit lower triangular, ``(*lead, d, d)`` with trailing batch dimensions ``*lead``;
            None for independent coordinates.
        centre: location where the standardised values before are zero, ``(*lead, d)``.
        log_spread: log-scale there, ``(*lead, d)``.
    """

    loc: Tensor
    log_scale: Tensor
    lower: Tensor | None
    centre: Tensor
    log_spread: Tensor

    def inputs(
        self,
        u: Tensor,  # (*batch, d)
    ) -> Inputs:
        """A value of the site as an input of later ones."""
        return Inputs.of(u, self.centre, self.log_spread.exp())


class Conditional(PyroModule):
    """The parameters of one site's conditional."""

    @abstractmethod
    def given(
        self,
        inputs: Inputs | None,
    ) -> Given:
        """The normal at values of the sites before; reads every parameter once, in the plates."""
