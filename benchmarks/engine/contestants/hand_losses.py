"""Losses by hand at given parameters, to compare other contestants with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jvp

from benchmarks.engine.cell import AMORTISED, Cell
from benchmarks.engine.contestants.hand import LOSSES
from benchmarks.engine.problems.hand_guides import Parameters, written_for
from benchmarks.engine.problems.in_pyro import arguments

__all__ = ["bump", "sample"]

ENCODERS_BIAS = 7  # of the mean, after four parameters of the decoder and two of the hidden layer


def bump(size: int) -> Tensor:
    """Where the guide's mean is, and the direction in which it moves."""
    return 0.1 * torch.arange(size).sin()


def sample(cell: Cell, count: int) -> tuple[list[float], list[float]]:
    """Losses of so many steps that stay put, and their slopes as the guide's mean moves."""
    data = arguments(cell.model)
    written = written_for(cell, data)
    loss = LOSSES[cell.objective](written)
    here, way = _at_bump(cell, written.start())

    def one(noise: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(lambda *parameters: loss(parameters, noise, *data), here, way)

    with torch.no_grad():
        pairs = [one(torch.randn(cell.particles, *written.noise)) for _ in range(count)]
    losses, slopes = zip(*pairs, strict=True)
    return [float(x) for x in losses], [float(x) for x in slopes]


def _at_bump(cell: Cell, start: Parameters) -> tuple[Parameters, Parameters]:
    here, way = list(start), [torch.zeros_like(p) for p in start]
    mean = ENCODERS_BIAS if cell.guide == AMORTISED else 0
    way[mean] = bump(start[mean].numel())
    if cell.guide != AMORTISED:
        here[mean] = way[mean]
    return tuple(here), tuple(way)
