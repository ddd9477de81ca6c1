"""Full-rank normals that know the density of their own draws from the noise they were made of."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["KeepNoise", "MultivariateNormal"]


class MultivariateNormal(dist.MultivariateNormal):
    r"""A normal that keeps the noise of its last draw :math:`x = \mu + L \epsilon`.

    The density of this draw is that of the noise, less :math:`\log \det L`. Solving
    :math:`L \epsilon = x - \mu` would find the noise again, with the same total derivative, at
    half the cost of a compiled step of a small model. A draw that was detached is another tensor:
    its density has derivatives in :math:`\mu` and :math:`L` alone, and the solve finds them.
    """

    _own: tuple[Tensor, Tensor] | None = None  # the draw and its noise

    @classmethod
    def of(cls, fn: dist.MultivariateNormal) -> MultivariateNormal:
        """The same distribution, which remembers."""
        new = cls.__new__(cls)
        new.__dict__.update(fn.__dict__)
        return new

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw with gradients: the same numbers as ever."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.empty(shape, dtype=self.loc.dtype, device=self.loc.device).normal_()
        draw = self.loc + (self._unbroadcasted_scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        self._own = draw, noise
        return draw

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, by the noise at the last draw itself."""
        if self._own is None or value is not self._own[0]:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        noise = self._own[1]
        log_det = self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        squared = noise.square().sum(-1)
        return -0.5 * (squared + noise.shape[-1] * math.log(2 * math.pi)) - log_det


class KeepNoise(Messenger):
    """Let full-rank normals that are about to be drawn keep their noise.

    Enter it outside of the plate of particles, which expands distributions.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        undrawn = msg["value"] is None and not msg["is_observed"]
        if undrawn and type(msg["fn"]) is dist.MultivariateNormal:
            msg["fn"] = MultivariateNormal.of(msg["fn"])
