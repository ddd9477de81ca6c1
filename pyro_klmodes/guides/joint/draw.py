"""One draw of the flat vector, handed out site by site."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.joint.base import JointDensity
from pyro_klmodes.guides.joint.packing import Block, Packing

__all__ = ["BlockOfDraw", "JointDraw"]


class JointDraw:
    """A vector u, the values that the sites made of it, and the density of what they took.

    A handler may give a site another value than the one drawn (replayed, detached). The density is
    that of the values taken, each block conditional on those before it.
    """

    def __init__(
        self,
        density: JointDensity,
        packing: Packing,
        lead: torch.Size,
        u: Tensor,  # (*lead, D)
    ) -> None:
        self.density = density
        self.packing = packing
        self.lead = lead
        self.u = u
        self._pieces: list[Tensor] = []  # unconstrained, as drawn
        self._drawn: list[Tensor] = []  # constrained, as drawn
        self._taken: list[Tensor] = []
        self._conditionals: Tensor | None = None
        for block in packing.blocks:
            piece = block.split(u, packing.batch(lead, block))
            self._pieces.append(piece)
            self._drawn.append(block.latent.transform(piece))

    def site(self, i: int) -> BlockOfDraw:
        """The distribution of the i-th latent given those before it."""
        return BlockOfDraw(self, i, self.packing.blocks[i])

    def value(self, i: int) -> Tensor:
        """The i-th latent as drawn.

        Raises:
            UnsupportedStructure: if an earlier latent has been given another value than the one
                drawn, so that this one should be drawn anew.
        """
        for j, taken in enumerate(self._taken):
            if taken.data_ptr() != self._drawn[j].data_ptr():
                names = [b.latent.name for b in self.packing.blocks]
                raise UnsupportedStructure(
                    f"site '{names[j]}' has been given a value, but '{names[i]}', which was drawn "
                    "together with it, has not. Fix all latents of a joint guide or none, or use "
                    "AutoAutoregressive, which draws one site after the other."
                )
        return self._drawn[i]

    def take(self, value: Tensor) -> None:
        """Note the value that the next site has taken."""
        self._taken.append(value)

    def vector(self) -> Tensor:  # (*lead, D)
        """The vector of the values taken, once all sites have theirs."""
        return self._joined([self._unconstrained(j, v) for j, v in enumerate(self._taken)])

    def log_prob(
        self,
        i: int,
        value: Tensor,  # (*batch, *event_shape)
    ) -> Tensor:  # (*batch)
        """Log-density of the i-th latent given those before it."""
        block = self.packing.blocks[i]
        complete = len(self._taken) == len(self.packing.blocks)
        if complete and value is self._taken[i]:
            if self._conditionals is None:
                pieces = [self._unconstrained(j, v) for j, v in enumerate(self._taken)]
                self._conditionals = self._evaluate(pieces)
            conditionals = self._conditionals
        else:
            before = [self._unconstrained(j, v) for j, v in enumerate(self._taken[:i])]
            pieces = [*before, self._unconstrained(i, value), *self._pieces[i + 1 :]]
            conditionals = self._evaluate(pieces)
        own = conditionals[..., block.first : block.last]
        own = own.reshape(self.packing.batch(self.lead, block))
        return own - block.latent.log_det(self._unconstrained(i, value), value)

    def _unconstrained(self, i: int, value: Tensor) -> Tensor:
        """The piece that was drawn, with its graph, or the inverse of another value."""
        if value is self._drawn[i]:
            return self._pieces[i]
        inverse: Tensor = self.packing.blocks[i].latent.transform.inv(value)
        return inverse

    def _joined(self, pieces: list[Tensor]) -> Tensor:  # (*lead, D)
        if all(mine is theirs for mine, theirs in zip(pieces, self._pieces, strict=True)):
            return self.u  # the tensor itself: flows know its density from having drawn it
        return torch.cat([p.reshape((*self.lead, -1)) for p in pieces], -1)

    def _evaluate(self, pieces: list[Tensor]) -> Tensor:  # (*lead, cells)
        return self.density.log_conditionals(self._joined(pieces), self.packing.ends)


class BlockOfDraw(TorchDistribution):
    """One latent of a joint draw, as a distribution."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, draw: JointDraw, i: int, block: Block) -> None:
        self.draw, self.i = draw, i
        self.latent = block.latent
        batch = draw.packing.batch(draw.lead, block)
        super().__init__(batch, self.latent.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether draws carry gradients."""
        return self.draw.density.has_rsample

    @property
    def support(self) -> Any:
        """That of the model's site."""
        return self.latent.support

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """The latent of the draw: the same one every time."""
        if tuple(sample_shape):
            raise UnsupportedStructure(
                f"site '{self.latent.name}' is part of one joint draw; call the guide inside of a "
                "plate to have more of them."
            )
        return self.draw.value(self.i)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """The latent of the draw, without gradients."""
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density given the latents before this one."""
        return self.draw.log_prob(self.i, value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> BlockOfDraw:
        """Itself: its batch shape is that of the plates around the guide already."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        raise UnsupportedStructure(
            f"site '{self.latent.name}' of a joint draw has batch shape {tuple(self.batch_shape)} "
            f"and cannot be expanded to {tuple(batch_shape)}."
        )
