"""Where each latent lies in the flat vector of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.guides.latents import Latent

__all__ = ["Block", "Packing"]


@dataclass(frozen=True)
class Block:
    """The place of one latent: coordinates ``start:stop``, and cells ``first:last``.

    A cell is one element of the site's batch: as many coordinates as its event has, and one
    log-probability.
    """

    latent: Latent
    start: int
    stop: int
    first: int
    last: int

    def split(
        self,
        u: Tensor,  # (*lead, D)
        batch: torch.Size,
    ) -> Tensor:  # (*batch, *unconstrained_event_shape)
        """The block of this latent, unconstrained."""
        piece = u[..., self.start : self.stop]
        return piece.reshape(batch + self.latent.unconstrained_event_shape)


class Packing:
    """The order of the latents in the flat vector, element by element of their plates."""

    def __init__(self, latents: Mapping[str, Latent]) -> None:
        self.blocks: list[Block] = []
        self.ends: list[int] = []  # of the cells
        at = 0
        for latent in latents.values():
            cells = math.prod(latent.batch_shape)
            size = math.prod(latent.unconstrained_event_shape)
            first = len(self.ends)
            self.ends += [at + (i + 1) * size for i in range(cells)]
            self.blocks.append(Block(latent, at, at + cells * size, first, len(self.ends)))
            at += cells * size
        self.nesting = max(len(b.latent.batch_shape) for b in self.blocks)

    def batch(self, lead: torch.Size, block: Block) -> torch.Size:
        """The batch shape of a site, with the batch dimensions around the guide left of its own."""
        own = block.latent.batch_shape
        if not lead:
            return own
        return lead + torch.Size([1] * (self.nesting - len(own))) + own

    def initial(self) -> Tensor:  # (D,)
        """The initial values in one vector."""
        return torch.cat([b.latent.unconstrained.reshape(-1) for b in self.blocks])
