"""The network that sees the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_klmodes.errors import InvalidArgument

__all__ = ["MLP", "encode"]


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron that sizes itself to the data.

    Args:
        hidden: widths of the hidden layers. None at all, ``()``, makes the parameters of the local
            latents affine functions of the data.
        activation: makes the nonlinearity after each hidden layer.
        standardise: whether inputs are shifted and scaled, coordinate by coordinate, by the mean
            and standard deviation of the data that the guide is set up with. These are buffers:
            they do not change with later data, and are saved in the ``state_dict``.

    Raises:
        InvalidArgument: if a width is not a positive integer.

    Example:
        >>> encoder = MLP(hidden=(8,)).build(torch.randn(100, 3), like=torch.zeros(()))
        >>> encoder(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: Callable[[], nn.Module] = nn.SiLU
    standardise: bool = True

    def __post_init__(self) -> None:
        for width in self.hidden:
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise InvalidArgument(f"hidden={self.hidden!r} must be positive integers.")

    def build(
        self,
        rows: Tensor,  # (n, *datum_shape)
        like: Tensor,
    ) -> nn.Module:
        """The network for such data, in the type and on the device of ``like``."""
        flat = rows.flatten(1).to(like)
        layers: list[nn.Module] = [_Inputs(flat, measure=self.standardise)]
        for before, after in pairwise([flat.shape[-1], *self.hidden]):
            layers += [
                nn.Linear(before, after, dtype=like.dtype, device=like.device),
                self.activation(),
            ]
        return nn.Sequential(*layers)


class _Inputs(nn.Module):
    """Each datum as one vector, standardised."""

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        rows: Tensor,  # (n, size)
        *,
        measure: bool,
    ) -> None:
        super().__init__()
        shift, scale = rows.new_zeros(rows.shape[-1]), rows.new_ones(rows.shape[-1])
        if measure:
            shift, sd = rows.mean(0), rows.std(0, correction=0)
            scale = torch.where(sd > 0, sd, scale)  # what never changes is only shifted
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(
        self,
        rows: Tensor,  # (n, *datum_shape)
    ) -> Tensor:  # (n, size)
        return (rows.flatten(1).to(self.shift) - self.shift) / self.scale


def encode(
    encoder: nn.Module,
    rows: Tensor,  # (n, *datum_shape)
) -> Tensor:  # (n, features)
    """Run the encoder on all rows at once.

    Raises:
        InvalidArgument: unless it returns a vector for each row.
    """
    features = encoder(rows)
    got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(rows):
        raise InvalidArgument(
            f"the encoder made {got} of data of shape {tuple(rows.shape)}; it must return a vector "
            f"for each row, ({len(rows)}, features). The guide's own heads turn these into the "
            "parameters of the local latents, so any number of features will do."
        )
    return features
