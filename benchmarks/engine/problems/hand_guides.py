"""Guides written directly in torch, as functions of a tuple of parameters.

Each returns the log-weight log p - log q of draws made from standard normal noise, in two ways:
``draw`` with the gradient through the draws, ``score`` at draws that are held fixed, with the
gradient of log q (and of a model's own parameters) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import softplus

from benchmarks.engine.cell import AMORTISED, MEAN_FIELD, Cell
from benchmarks.engine.problems.autoencoder import Autoencoder
from benchmarks.engine.problems.by_hand import FLAT, HALF_LOG_TAU, Flat, bernoulli, normal
from benchmarks.engine.problems.data import LATENTS

__all__ = ["Parameters", "Written", "written_for"]

Parameters = tuple[Tensor, ...]

SCALE = 0.1  # the guides' initial scale, in Pyro and NumPyro as well


class Written(Protocol):
    """A model together with a guide.

    Attributes:
        noise: shape of the standard normal noise of one particle.
    """

    noise: tuple[int, ...]

    def start(self) -> Parameters:
        """Initial values."""

    def draw(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """``log p`` and ``log q``, (K, *local), with the gradient through the draws."""

    def score(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """The same values, with the gradient at fixed draws."""


@dataclass(frozen=True)
class MeanField:
    """Independent normals; parameters: means (D,), scales before a softplus (D,)."""

    flat: Flat

    @property
    def noise(self) -> tuple[int, ...]:
        """One number per coordinate."""
        return (self.flat.dimension,)

    def start(self) -> Parameters:
        """At zero."""
        zeros = torch.zeros(self.flat.dimension)
        return zeros, torch.full_like(zeros, softplus_inverse(SCALE))

    def draw(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of log q is that of its scale."""
        loc, raw = parameters
        scale = softplus(raw)
        log_q = (-0.5 * noise**2 - HALF_LOG_TAU - scale.log()).sum(-1)
        return self.flat.density(loc + scale * noise, *data), log_q

    def score(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing but log q depends on parameters."""
        loc, raw = parameters
        scale = softplus(raw)
        z = (loc + scale * noise).detach()
        return self.flat.density(z, *data), normal(z, loc, scale).sum(-1)


@dataclass(frozen=True)
class FullRank:
    """A normal; parameters: mean (D,), scales (D,), correlating factor (D, D).

    As in Pyro, the factor is unit lower triangular and its rows are multiplied by the scales.
    """

    flat: Flat

    @property
    def noise(self) -> tuple[int, ...]:
        """One number per coordinate."""
        return (self.flat.dimension,)

    def start(self) -> Parameters:
        """At zero, uncorrelated."""
        size = self.flat.dimension
        zeros = torch.zeros(size)
        return zeros, torch.full_like(zeros, softplus_inverse(SCALE)), torch.zeros(size, size)

    def draw(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of log q is that of its scales."""
        loc, raw, lower = parameters
        scale = softplus(raw)
        log_q = (-0.5 * noise**2 - HALF_LOG_TAU - scale.log()).sum(-1)
        return self.flat.density(self._place(loc, scale, lower, noise), *data), log_q

    def score(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing but log q depends on parameters."""
        loc, raw, lower = parameters
        scale = softplus(raw)
        z = self._place(loc, scale, lower, noise).detach()
        standard = torch.linalg.solve_triangular(
            lower.tril(-1), ((z - loc) / scale).mT, upper=False, unitriangular=True
        ).mT
        log_q = (-0.5 * standard**2 - HALF_LOG_TAU - scale.log()).sum(-1)
        return self.flat.density(z, *data), log_q

    @staticmethod
    def _place(loc: Tensor, scale: Tensor, lower: Tensor, noise: Tensor) -> Tensor:
        return loc + scale * (noise + noise @ lower.tril(-1).mT)


@dataclass(frozen=True)
class Amortised:
    """The autoencoder; parameters: those of the decoder, then those of the encoder."""

    networks: Autoencoder
    batch: int

    @property
    def noise(self) -> tuple[int, ...]:
        """For every image its latents."""
        return (self.batch, LATENTS)

    def start(self) -> Parameters:
        """As the networks begin."""
        both = (self.networks.decoder, self.networks.encoder)
        return tuple(p.detach().clone() for net in both for p in net.parameters())

    def draw(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """Weights are per image."""
        mean, width = self._encode(parameters, *data)
        log_q = (-0.5 * noise**2 - HALF_LOG_TAU - width.log()).sum(-1)
        return self._log_p(parameters, mean + width * noise, *data), log_q

    def score(self, parameters: Parameters, noise: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder depends on parameters as well."""
        mean, width = self._encode(parameters, *data)
        z = (mean + width * noise).detach()
        return self._log_p(parameters, z, *data), normal(z, mean, width).sum(-1)

    def _encode(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self.networks.encoder
        names = [name for name, _ in encoder.named_parameters()]
        return functional_call(encoder, dict(zip(names, parameters[-len(names) :], strict=True)), x)

    def _log_p(self, parameters: Parameters, z: Tensor, x: Tensor) -> Tensor:
        decoder = self.networks.decoder
        names = [name for name, _ in decoder.named_parameters()]
        logits = functional_call(
            decoder, dict(zip(names, parameters[: len(names)], strict=True)), z
        )
        return normal(z, 0.0, 1.0).sum(-1) + bernoulli(x, logits).sum(-1)


def written_for(cell: Cell, data: tuple[Tensor, ...]) -> Written:
    """What is written by hand for a cell."""
    if cell.guide == AMORTISED:
        return Amortised(Autoencoder(), data[0].shape[0])
    family = MeanField if cell.guide == MEAN_FIELD else FullRank
    return family(FLAT[cell.model])


def softplus_inverse(value: float) -> float:
    """The number whose softplus is ``value``."""
    return math.log(math.expm1(value))
