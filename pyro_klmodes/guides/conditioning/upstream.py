"""The values drawn so far, as inputs of the sites that come after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Inputs", "Upstream"]


class Inputs(NamedTuple):
    """Values of some sites side by side: unconstrained, ``u = centre + spread * x``.

    Attributes:
        x: standardised, ``(*batch, G)``.
        centre: ``(*batch, G)``, a function of parameters alone.
        spread: ``(*batch, G)``, a function of parameters alone.
    """

    x: Tensor
    centre: Tensor
    spread: Tensor

    @classmethod
    def of(
        cls,
        u: Tensor,  # (*batch, G)
        centre: Tensor,  # (*batch, G)
        spread: Tensor,  # (*batch, G)
    ) -> Inputs:
        """Standardise unconstrained values.

        The map is affine, and the same at all values of earlier sites, so that what is linear in
        the standardised values is linear in the unconstrained ones.
        """
        return cls((u - centre) / spread, centre, spread)


class Upstream:
    """The sites drawn so far, by name."""

    def __init__(self) -> None:
        self._inputs: dict[str, Inputs] = {}

    def put(self, name: str, inputs: Inputs) -> None:
        """Keep the values of a site."""
        self._inputs[name] = inputs

    def gather(self, names: Sequence[str]) -> Inputs | None:
        """The values of some sites side by side, or None if there are none."""
        if not names:
            return None
        if len(names) == 1:
            return self._inputs[names[0]]
        return Inputs(*(_joined([self._inputs[n][i] for n in names]) for i in range(3)))


def _joined(parts: list[Tensor]) -> Tensor:
    if len({x.shape[:-1] for x in parts}) > 1:
        batch = torch.broadcast_shapes(*(x.shape[:-1] for x in parts))
        parts = [x.expand(*batch, -1) for x in parts]
    return torch.cat(parts, -1)
