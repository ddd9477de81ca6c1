"""Cleaning a noisy black and white picture: discrete mean field on a grid of spins.

    p(s) proportional to exp(J sum_{i~j} s_i s_j),   s_i = -1 or 1,
    x_i = s_i with probability 1 - f, flipped with probability f,

with a sum over neighbours in the four directions. As sites spins are zeros and ones, ``b = (s + 1)
/ 2``. Each of them has the prior Bernoulli(1/2), and the neighbours a ``pyro.factor``, whose
normalising constant is left out, so that the evidence is

    log sum_s 2^-n exp(J sum_{i~j} s_i s_j) prod_i p(x_i | s_i).

Squares of one colour of a chessboard have no neighbours of their own colour: given the white ones
the black ones are independent. So there are two sites, ``black`` and ``white``, in two plates, and
the factor is in both. Coordinate ascent may update all squares of a colour at once, see
``ising_denoise_updates``.

On twelve squares evidence and marginals are a sum over 4096 states.

Source: Bishop (2006), "Pattern recognition and machine learning", section 8.3.3.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "COUPLING",
    "FLIP",
    "by_colour",
    "enumeration",
    "mean_field_guide",
    "model",
    "neighbours",
    "noisy",
    "on_grid",
    "picture",
    "problem",
    "sum_of_neighbours",
    "tiny",
]

COUPLING, FLIP = 0.5, 0.15  # J and f
SEED = 1925


def picture() -> Tensor:  # (32, 32)
    """The letters K and L, of ones.

    Example:
        >>> picture().shape, int(picture().sum())
        (torch.Size([32, 32]), 295)
    """
    row, column = torch.arange(32)[:, None], torch.arange(32)
    inside = (row >= 5) & (row < 27)
    k_bar = (column >= 3) & (column < 7)
    slope = (row - 16).abs() * 0.8 + 7  # of the arms of the K
    k_arms = (column >= 7) & ((column - slope).abs() < 2.2) & (column < 18)
    l_bar = (column >= 20) & (column < 24)
    l_foot = (column >= 20) & (column < 30) & (row >= 23)
    return (inside & (k_bar | k_arms | l_bar | l_foot)).to(torch.get_default_dtype())


def noisy(
    clean: Tensor,  # (H, W)
    flip: float = FLIP,
    seed: int = SEED,
) -> Tensor:  # (H, W)
    """The picture with some pixels flipped, by the uniform numbers of a seeded PCG64 generator.

    Example:
        >>> int((noisy(picture()) != picture()).sum())
        163
    """
    uniform = np.random.Generator(np.random.PCG64(seed)).random(tuple(clean.shape))
    return torch.where(torch.as_tensor(uniform) < flip, 1 - clean, clean)


def _squares(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions of black and white squares in a flattened picture; the first one is black."""
    colour = (torch.arange(height)[:, None] + torch.arange(width)).reshape(-1) % 2
    return torch.where(colour == 0)[0], torch.where(colour == 1)[0]


def by_colour(
    grid: Tensor,  # (*batch, H, W)
) -> tuple[Tensor, Tensor]:  # (*batch, black squares), (*batch, white squares)
    """The values on black and on white squares, row by row.

    Example:
        >>> by_colour(torch.arange(6).reshape(2, 3))
        (tensor([0, 2, 4]), tensor([1, 3, 5]))
    """
    black, white = _squares(*grid.shape[-2:])
    flat = grid.flatten(-2)
    return flat[..., black], flat[..., white]


def on_grid(
    black: Tensor,  # (*batch, black squares)
    white: Tensor,  # (*batch, white squares)
    height: int,
    width: int,
) -> Tensor:  # (*batch, H, W)
    """The inverse of ``by_colour``.

    Example:
        >>> on_grid(torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5]), 2, 3)
        tensor([[0, 1, 2],
                [3, 4, 5]])
    """
    order = torch.cat(_squares(height, width)).argsort()
    return torch.cat([black, white], -1)[..., order].unflatten(-1, (height, width))


def neighbours(height: int, width: int) -> Tensor:  # (white squares, black squares)
    """One where a white and a black square share a side, zero elsewhere.

    Example:
        >>> neighbours(2, 2)
        tensor([[1., 1.],
                [1., 1.]])
    """
    black, white = _squares(height, width)
    down = (black // width - white[:, None] // width).abs()
    across = (black % width - white[:, None] % width).abs()
    return (down + across == 1).to(torch.get_default_dtype())


def model(
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
) -> None:
    """Spins ``black`` (B) and ``white`` (A, 1), pixels of the same names with ``_pixel``.

    Args:
        image: Zeros and ones.
        coupling: J, how much neighbours like to be alike.
        flip: f, the share of pixels that are wrong.
    """
    black_pixel, white_pixel = by_colour(image)
    touching = neighbours(*image.shape).to(image)  # (A, B)
    half = image.new_tensor(0.5)
    black_plate = pyro.plate("black_squares", len(black_pixel), dim=-1)
    white_plate = pyro.plate("white_squares", len(white_pixel), dim=-2)
    with black_plate:
        black = pyro.sample("black", dist.Bernoulli(half))
        shown = dist.Bernoulli(flip + (1 - 2 * flip) * black)
        pyro.sample("black_pixel", shown, obs=black_pixel)
    with white_plate:
        white = pyro.sample("white", dist.Bernoulli(half))
        shown = dist.Bernoulli(flip + (1 - 2 * flip) * white)
        pyro.sample("white_pixel", shown, obs=white_pixel[:, None])
        with black_plate:
            pyro.factor("alike", coupling * touching * (2 * black - 1) * (2 * white - 1))


def mean_field_guide(
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
) -> None:
    """Independent Bernoullis with parameters ``black_logits`` (B) and ``white_logits`` (A, 1)."""
    black_pixel, white_pixel = by_colour(image)
    black = pyro.param("black_logits", lambda: torch.zeros_like(black_pixel))
    white = pyro.param("white_logits", lambda: torch.zeros_like(white_pixel)[:, None])
    with pyro.plate("black_squares", len(black_pixel), dim=-1):
        pyro.sample("black", dist.Bernoulli(logits=black))
    with pyro.plate("white_squares", len(white_pixel), dim=-2):
        pyro.sample("white", dist.Bernoulli(logits=white))


def sum_of_neighbours(
    grid: Tensor,  # (*batch, H, W)
) -> Tensor:  # (*batch, H, W)
    """The sum of the values around every square, in four directions, nothing outside.

    Example:
        >>> sum_of_neighbours(torch.tensor([[1.0, 2.0, 4.0]]))
        tensor([[2., 5., 2.]])
    """
    total = torch.zeros_like(grid)
    total[..., 1:, :] += grid[..., :-1, :]
    total[..., :-1, :] += grid[..., 1:, :]
    total[..., :, 1:] += grid[..., :, :-1]
    total[..., :, :-1] += grid[..., :, 1:]
    return total


def enumeration(
    image: Tensor,  # (H, W)
    coupling: float = COUPLING,
    flip: float = FLIP,
) -> tuple[float, Tensor]:  # log evidence, (H, W)
    """Log evidence and the chances of the spins to be 1, by a sum over all states.

    Raises:
        ValueError: If there are more than sixteen squares.

    Example:
        >>> enumeration(torch.ones(1, 1))
        (-0.6931..., tensor([[0.8500]]))
    """
    if image.numel() > 16:
        raise ValueError(f"{image.numel()} squares have {2 ** image.numel()} states; take up to 16")
    states = torch.tensor(list(product((-1.0, 1.0), repeat=image.numel())), dtype=torch.float64)
    states = states.reshape(-1, *image.shape)
    right = (states == 2 * image - 1).sum((-2, -1)).double()
    log_p = right * math.log(1 - flip) + (image.numel() - right) * math.log(flip)
    log_p = log_p + 0.5 * coupling * (states * sum_of_neighbours(states)).sum((-2, -1))
    log_evidence = float(log_p.logsumexp(0)) - image.numel() * math.log(2)
    chance = torch.einsum("s,shw->hw", log_p.softmax(0), (1 + states) / 2)
    return log_evidence, chance.to(image.dtype)


def tiny() -> Tensor:  # (3, 4)
    """Twelve squares: a dark left half with a wrong pixel, and one more in the light half.

    Example:
        >>> tiny()
        tensor([[1., 1., 0., 0.],
                [0., 1., 0., 1.],
                [1., 1., 0., 0.]])
    """
    return torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0]], dtype=torch.get_default_dtype())


def problem() -> Problem:
    """Twelve squares. The moments are those of zeros and ones.

    Example:
        >>> case = problem()
        >>> case.reference["white"].mean.shape, round(case.log_evidence, 3)
        (torch.Size([6, 1]), -6.874)
    """
    image = tiny()
    log_evidence, chance = enumeration(image)
    black, white = by_colour(chance)
    white = white[:, None]
    return Problem(
        name="Ising",
        model=model,
        args=(image,),
        guide=mean_field_guide,
        reference={
            "black": Moments(black, (black * (1 - black)).sqrt()),
            "white": Moments(white, (white * (1 - white)).sqrt()),
        },
        log_evidence=log_evidence,
        how="enumeration",
        source="made up for this file, after Bishop (2006)",
        guides=(),
    )
