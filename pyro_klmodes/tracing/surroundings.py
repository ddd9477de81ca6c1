"""The plates a guide finds itself in when it is called: particles, and what a user adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import get_plates

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.plates import STRATA

__all__ = ["Surroundings", "refuse_plates_to_the_right"]


def refuse_plates_to_the_right(own: Iterable[CondIndepStackFrame]) -> None:
    """Refuse to set up a guide inside of a plate that takes the place of its own.

    Pyro moves plates without a fixed dimension left of those that they are entered in.

    Raises:
        UnsupportedStructure: naming both plates.
    """
    around = [f for f in get_plates() if f.vectorized]
    for frame in own:
        for other in around:
            if other.dim > frame.dim:
                raise UnsupportedStructure(
                    f"the guide is first called inside of plate '{other.name}' of dim={other.dim}, "
                    f"right of the model's own plate '{frame.name}' of dim={frame.dim}. Give "
                    f"'{other.name}' a dim left of all plates of the model (for vectorised "
                    "particles: a larger max_plate_nesting)."
                )


@dataclass(frozen=True)
class Surroundings:
    """The batch dimensions around a guide, left of its own.

    Attributes:
        lead: sizes of the batch dimensions left of the guide's own plates.
        stratified: position in ``lead`` of particles that may be spread over the components of a
            mixture, with a weight each; None where every particle must be a draw of its own.
    """

    lead: torch.Size
    stratified: int | None = None

    @classmethod
    def of(cls, nesting: int) -> Surroundings:
        """Read them off the handler stack, for a guide whose plates are ``nesting`` deep.

        Raises:
            UnsupportedStructure: if a plate around the guide has a dimension that is its own.
        """
        frames = [f for f in get_plates() if f.vectorized]
        for frame in frames:
            if frame.dim >= -nesting:
                raise UnsupportedStructure(
                    f"the guide is called inside of plate '{frame.name}' of dim={frame.dim}, which "
                    f"its own plates take up. Give that plate dim={-nesting - 1} or less (for "
                    f"vectorised particles: max_plate_nesting={nesting} or more)."
                )
        sizes = [1] * (max((-f.dim for f in frames), default=nesting) - nesting)
        stratified = None
        for frame in frames:
            position = len(sizes) + nesting + frame.dim
            sizes[position] = frame.size
            if frame.name == STRATA:
                stratified = position
        return cls(torch.Size(sizes), stratified)
