"""What an E-step leaves of a site: its distribution, the values filled in, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Factor"]


@dataclass(frozen=True)
class Factor:
    """A scored site of the model, with the posterior weight of each filling of the latents.

    Attributes:
        name: the site.
        fn: its distribution in one run; batch dimensions as Pyro lays them out, those of
            enumeration left of those of plates.
        value: data, or the values of a latent that were filled in; broadcasts against batch and
            event of ``fn``. With one dimension more than that, R, each start has its own.
        weight: posterior weight x scale x mask of every element of the log-probability, for R
            starts: ``(R, *batch)``, dimensions of size 1 where it is the same.
    """

    name: str
    fn: Any
    value: Tensor
    weight: Tensor
