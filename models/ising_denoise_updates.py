"""Mean field for a grid of spins by hand: updates, fixed point and bound.

With independent spins of means m, the field ``h = log((1 - f) / f) / 2`` and pixels ``x_i`` of -1
and 1, the means that maximise the bound with the others held are

    m_i = tanh(J sum_{j~i} m_j + h x_i),

of which all of one colour may be taken at once. For a strong coupling J there is more than one
fixed point; where sweeps end depends on where they start.

Source: Murphy (2012), "Machine learning: a probabilistic perspective", section 21.3.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.ising_denoise import COUPLING, FLIP, sum_of_neighbours

__all__ = ["coordinate_updates", "elbo", "fixed_point"]


def _field(flip: float) -> float:
    return 0.5 * math.log((1 - flip) / flip)


def coordinate_updates(
    mean: Tensor,  # (*batch, H, W)
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
) -> Tensor:  # (*batch, H, W)
    """One sweep over the means of the spins: first all black squares, then all white ones.

    Example:
        >>> coordinate_updates(torch.zeros(1, 2), torch.ones(1, 2), coupling=0.0)  # 1 - 2 flip
        tensor([[0.7000, 0.7000]])
    """
    height, width = image.shape
    colour = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    field = _field(flip) * (2 * image - 1)
    for now in (0, 1):
        updated = torch.tanh(coupling * sum_of_neighbours(mean) + field)
        mean = torch.where(colour == now, updated, mean)
    return mean


def fixed_point(
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
    sweeps: int = 500,
) -> Tensor:  # (H, W)
    """Where sweeps end that start from no opinion.

    Example:
        >>> fixed_point(torch.ones(1, 1))
        tensor([[0.7000]])
    """
    mean = torch.zeros_like(image)
    for _ in range(sweeps):
        mean = coordinate_updates(mean, image, coupling, flip)
    return mean


def elbo(
    mean: Tensor,  # (*batch, H, W)
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
) -> Tensor:  # (*batch)
    """The evidence lower bound of independent spins with given means, exactly.

    Example:
        >>> elbo(torch.tensor([[0.7]]), torch.ones(1, 1))  # no neighbours: the evidence, 1/2
        tensor(-0.6931)
    """
    pairs = 0.5 * (mean * sum_of_neighbours(mean)).sum((-2, -1))
    chance = (1 + mean) / 2
    entropy = (torch.special.entr(chance) + torch.special.entr(1 - chance)).sum((-2, -1))
    fits = (mean * (2 * image - 1)).sum((-2, -1))
    constant = image.numel() * (0.5 * math.log(flip * (1 - flip)) - math.log(2))
    return coupling * pairs + _field(flip) * fits + entropy + constant
