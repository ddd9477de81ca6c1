"""What a fit has cost."""

from __future__ import annotations

from typing import Any

from pyro_klmodes.entries.recipe import particles_of
from pyro_klmodes.inference import FitResult

__all__ = ["gradient_evaluations"]


def gradient_evaluations(source: Any) -> int | None:
    """Steps times particles (times outer particles): draws that were differentiated.

    None for whatever does not remember its steps, as Pyro's SVI and pairs of model and guide.

    Example:
        >>> gradient_evaluations("an SVI") is None
        True
    """
    if not isinstance(source, FitResult):
        return None
    return source.steps * (particles_of(source.loss) or 1)
