"""The autoencoder 784-400-20 in torch, with the initial values that all contestants start from."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.engine.problems.data import LATENTS, PIXELS

__all__ = ["HIDDEN", "Autoencoder", "Decoder", "Encoder"]

HIDDEN = 400


class Encoder(nn.Module):
    """Images (..., pixels) to mean and standard deviation, (..., latents) each."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(PIXELS, HIDDEN)
        self.mean = nn.Linear(HIDDEN, LATENTS)
        self.log_width = nn.Linear(HIDDEN, LATENTS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One hidden layer."""
        hidden = softplus(self.hidden(x))
        return self.mean(hidden), self.log_width(hidden).exp()


class Decoder(nn.Module):
    """Latents (..., latents) to logits (..., pixels)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(LATENTS, HIDDEN)
        self.logits = nn.Linear(HIDDEN, PIXELS)

    def forward(self, z: Tensor) -> Tensor:
        """One hidden layer."""
        return self.logits(softplus(self.hidden(z)))


class Autoencoder:
    """Model and guide of images of shape (batch, pixels)."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder, self.decoder = Encoder(), Decoder()

    def model(self, x: Tensor) -> None:
        """Standard normal latents, independent pixels."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("batch", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Independent normals."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("batch", x.shape[0]):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))
