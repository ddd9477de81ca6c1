"""Lengths of the steps on minibatches."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown

__all__ = ["RobbinsMonro"]


@dataclass(frozen=True)
class RobbinsMonro:
    r"""Steps :math:`\rho_t = (t + \text{delay})^{-\text{forgetting}}` for t = 1, 2, ...

    Their sum diverges and that of their squares does not, so that the noise of minibatches averages
    out.

    Args:
        delay: at least 0; larger values make the first steps shorter.
        forgetting: above 0.5 and at most 1; larger values forget more slowly.

    Raises:
        InvalidArgument: for numbers out of range.

    Source: Robbins and Monro (1951); Hoffman, Blei, Wang and Paisley (2013).

    Example:
        >>> RobbinsMonro(delay=1, forgetting=1.0)(1)
        0.5
    """

    delay: float = 1.0
    forgetting: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.delay, int | float) or not self.delay >= 0:
            raise InvalidArgument(f"delay={shown(self.delay)} must be a number, 0 or more.")
        if not isinstance(self.forgetting, int | float) or not 0.5 < self.forgetting <= 1:
            raise InvalidArgument(
                f"forgetting={shown(self.forgetting)} must be above 0.5 and at most 1."
            )

    def __call__(self, step: int) -> float:
        """The length of step number ``step``, from 1."""
        return float((step + self.delay) ** -self.forgetting)
