"""Encoders and decoders: linear ones, and those of images, fully connected and convolutional.

All of them take any number of leading dimensions: ``(*batch, pixels)`` to ``(*batch, latents)`` and
back. Losses that run many particles at once put a dimension of particles in front of that of the
data; a network that reshapes to ``(-1, pixels)`` and leaves it at that would mix the two up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder", "Decoder", "Encoder", "LinearNormal"]

SMALLEST_SCALE = 1e-3  # of an encoder: a datum's posterior is never a point


class LinearNormal(nn.Module):
    """Mean and standard deviation of a normal: the mean is linear, the other the same everywhere.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        scale: The standard deviation at the start.
        bias: Whether the mean has a constant.
        common: Whether all outputs have one standard deviation.
        learn_scale: Whether it is learnt.

    Example:
        >>> loc, scale = LinearNormal(2, 3, scale=0.5)(torch.zeros(7, 2))
        >>> loc.shape, scale.detach()
        (torch.Size([7, 3]), tensor([0.5000, 0.5000, 0.5000]))
    """

    log_scale: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        scale: float = 1.0,
        bias: bool = True,
        common: bool = False,
        learn_scale: bool = True,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        log_scale = torch.full(() if common else (outputs,), math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(
        self,
        given: Tensor,  # (*batch, inputs)
    ) -> tuple[Tensor, Tensor]:  # (*batch, outputs), and (outputs,) or ()
        """Mean and standard deviation."""
        return self.linear(given), self.log_scale.exp()


class Encoder(nn.Module):
    """Mean and standard deviation of a datum's latents, by one hidden layer.

    Example:
        >>> loc, scale = Encoder(64, 32, 5)(torch.zeros(7, 64))
        >>> loc.shape, bool((scale > 0).all())
        (torch.Size([7, 5]), True)
    """

    def __init__(self, pixels: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh())
        self.loc = nn.Linear(hidden, latents)
        self.raw_scale = nn.Linear(hidden, latents)

    def forward(
        self,
        x: Tensor,  # (*batch, pixels)
    ) -> tuple[Tensor, Tensor]:  # (*batch, latents) both
        """Mean and standard deviation."""
        return _loc_and_scale(self.hidden(x), self.loc, self.raw_scale)


class Decoder(nn.Module):
    """Logits, or means, of all pixels from latents, by one hidden layer.

    Example:
        >>> Decoder(5, 32, 64)(torch.zeros(3, 7, 5)).shape
        torch.Size([3, 7, 64])
    """

    def __init__(self, latents: int, hidden: int, pixels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, pixels)
        )

    def forward(
        self,
        z: Tensor,  # (*batch, latents)
    ) -> Tensor:  # (*batch, pixels)
        """One number per pixel."""
        return self.layers(z)


class ConvolutionalEncoder(nn.Module):
    """As ``Encoder``, by two convolutions that halve the side of the image each.

    Args:
        side: Height and width of an image, a multiple of four.
        channels: Channels after the first convolution; twice as many after the second.
        latents: Number of latents.

    Raises:
        ValueError: If ``side`` is no multiple of four.

    Example:
        >>> loc, scale = ConvolutionalEncoder(28, 8, 5)(torch.zeros(2, 7, 784))
        >>> loc.shape
        torch.Size([2, 7, 5])
    """

    def __init__(self, side: int, channels: int, latents: int) -> None:
        super().__init__()
        self.side = _checked_side(side)
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        features = 2 * channels * (side // 4) ** 2
        self.loc = nn.Linear(features, latents)
        self.raw_scale = nn.Linear(features, latents)

    def forward(
        self,
        x: Tensor,  # (*batch, side * side)
    ) -> tuple[Tensor, Tensor]:  # (*batch, latents) both
        """Mean and standard deviation."""
        batch = x.shape[:-1]
        # Convolutions know of one batch dimension only.
        features = self.layers(x.reshape(-1, 1, self.side, self.side))
        return _loc_and_scale(features.reshape(*batch, -1), self.loc, self.raw_scale)


class ConvolutionalDecoder(nn.Module):
    """As ``Decoder``, by two transposed convolutions that double the side of the image each.

    Args:
        latents: Number of latents.
        channels: Channels before the last convolution; twice as many before the one before.
        side: Height and width of an image, a multiple of four.

    Raises:
        ValueError: If ``side`` is no multiple of four.

    Example:
        >>> ConvolutionalDecoder(5, 8, 28)(torch.zeros(2, 7, 5)).shape
        torch.Size([2, 7, 784])
    """

    def __init__(self, latents: int, channels: int, side: int) -> None:
        super().__init__()
        corner = _checked_side(side) // 4
        self.layers = nn.Sequential(
            nn.Linear(latents, 2 * channels * corner**2),
            nn.ReLU(),
            nn.Unflatten(-1, (2 * channels, corner, corner)),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
            nn.Flatten(),
        )

    def forward(
        self,
        z: Tensor,  # (*batch, latents)
    ) -> Tensor:  # (*batch, side * side)
        """One number per pixel."""
        batch = z.shape[:-1]
        return self.layers(z.reshape(-1, z.shape[-1])).reshape(*batch, -1)


def _checked_side(side: int) -> int:
    if side < 4 or side % 4:
        raise ValueError(f"side must be a multiple of 4, got {side}: it is halved twice")
    return side


def _loc_and_scale(features: Tensor, loc: nn.Linear, raw_scale: nn.Linear) -> tuple[Tensor, Tensor]:
    return loc(features), SMALLEST_SCALE + nn.functional.softplus(raw_scale(features))
