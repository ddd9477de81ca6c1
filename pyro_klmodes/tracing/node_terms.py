"""What a run at nodes gives, and what it has to know about the latent sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.tracing.masks import mask_of
from pyro_klmodes.tracing.plates import plates_of, subsampled

__all__ = ["NodeTerm", "SiteView", "view_of"]


@dataclass(frozen=True)
class NodeTerm:
    """One scaled and masked log-probability, at all nodes.

    Attributes:
        name: of the site.
        value: node dimensions left of the plates, ``(*nodes, *batch)``.
        plates: names and batch dimensions of its plates.
        scale: the user's scale times full size over batch size of its subsampled plates.
    """

    name: str
    value: Tensor
    plates: Mapping[str, int]
    scale: float | Tensor = 1.0

    def depends_on(self, dim: int) -> bool:
        """Whether it has a node dimension."""
        return self.value.dim() >= -dim and self.value.shape[dim] > 1


@dataclass(frozen=True)
class SiteView:
    """A latent site as a call of the model has it.

    Attributes:
        name: of the site.
        fn: its distribution.
        plates: names and batch dimensions of its plates.
        shape: of its value, minibatches at their size.
        ratio: full size over batch size of its subsampled plates together.
        mask: what handlers and distribution mask, None if nothing.
        enumerated: whether it is marked for parallel enumeration.
    """

    name: str
    fn: Any
    plates: Mapping[str, int]
    shape: torch.Size
    ratio: float
    mask: Tensor | None
    enumerated: bool


def view_of(site: Mapping[str, Any]) -> SiteView:
    """Describe a latent site of a trace."""
    ratio = 1.0
    for r in subsampled(site).values():
        ratio *= r
    return SiteView(
        name=site["name"],
        fn=site["fn"],
        plates=plates_of(site),
        shape=site["value"].shape,
        ratio=ratio,
        mask=mask_of(site),
        enumerated=site["infer"].get("enumerate") == "parallel",
    )
