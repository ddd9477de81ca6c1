"""The parameters of a mean-field guide: read, taken for a minibatch, and written back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.latents import Latent

__all__ = ["GuideState"]


class GuideState:
    """Constrained parameters of all sites, at the full size of their plates.

    Args:
        guide: a guide that has been called.
    """

    def __init__(self, guide: AutoMeanField) -> None:
        self.guide = guide
        self.params: dict[str, dict[str, Tensor]] = {}
        self.read()

    @torch.no_grad()
    def read(self) -> None:
        """Take over the parameters that the guide has now."""
        self.params = {
            name: {p: v.detach().clone() for p, v in self.guide.parameters_of(name).items()}
            for name in self.guide.latents
        }

    @torch.no_grad()
    def write(self) -> None:
        """Give the guide these parameters."""
        for name, params in self.params.items():
            for parameter, value in params.items():
                owner = getattr(self.guide, parameter)
                *path, last = name.split(".")
                for part in path:
                    owner = getattr(owner, part)
                setattr(owner, last, value)

    def batch(self, indices: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The parameters that a minibatch sees."""
        return {
            name: {p: self._taken(self.guide.latents[name], v, indices) for p, v in params.items()}
            for name, params in self.params.items()
        }

    def update(
        self, batch: Mapping[str, Mapping[str, Tensor]], indices: Mapping[str, Tensor]
    ) -> None:
        """Write the parameters of a minibatch back to their places."""
        for name, params in batch.items():
            latent = self.guide.latents[name]
            for parameter, value in params.items():
                whole = self.params[name][parameter]
                self.params[name][parameter] = self._put(latent, whole, value, indices)

    def _taken(self, latent: Latent, value: Tensor, indices: Mapping[str, Tensor]) -> Tensor:
        for plate, index in indices.items():
            if plate in latent.plates:
                value = value.index_select(self._axis(latent, plate), index.to(value.device))
        return value

    def _put(
        self, latent: Latent, whole: Tensor, part: Tensor, indices: Mapping[str, Tensor]
    ) -> Tensor:
        inside = [p for p in indices if p in latent.plates]
        if not inside:
            return part
        plate, rest = inside[0], {p: indices[p] for p in inside[1:]}
        axis = self._axis(latent, plate)
        index = indices[plate].to(whole.device)
        slab = self._put(latent, whole.index_select(axis, index), part, rest)
        return whole.index_copy(axis, index, slab)

    @staticmethod
    def _axis(latent: Latent, plate: str) -> int:
        return len(latent.batch_shape) + latent.plates[plate]
