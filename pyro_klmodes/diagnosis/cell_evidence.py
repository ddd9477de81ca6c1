"""The log evidence of many cells, from draws that may come in several blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.weights import log_evidence

__all__ = ["CellEvidence"]


@dataclass(frozen=True)
class CellEvidence:
    r"""The mean weight of every cell and how much the weights vary around it.

    The log evidence is :math:`\sum_c \log \bar w_c + \frac12 \sum_c s_c^2`, where :math:`s_c^2` is
    the variance of :math:`\bar w_c` over its square. The second sum is the bias of the logarithms
    to second order. By itself each is smaller than its error, but biases add up over cells as fast
    as variances do: with a standard error of s in total the bias is s^2 / 2, which beyond s = 8 is
    more than four standard errors. Means of logarithms over blocks of draws would keep all of it.

    Attributes:
        log_mean: Logarithm of the mean weight, ``(cells,)``.
        squares: Sum over the draws of ``(w / mean - 1)^2``, ``(cells,)``.
        num_draws: How many draws there are.

    Example:
        >>> first, second = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [2.0]])
        >>> both = CellEvidence.of(first.log()).and_more(CellEvidence.of(second.log()))
        >>> both.log_mean.exp(), both.squares, both.num_draws
        (tensor([2.0000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64), 4)
    """

    log_mean: Tensor
    squares: Tensor
    num_draws: int

    @classmethod
    def of(
        cls,
        log_w: Tensor,  # (S, *local)
    ) -> CellEvidence:
        """Of one block of draws; -inf is a weight of zero."""
        cells = log_w.double().reshape(len(log_w), -1)
        log_mean, errors = log_evidence(cells)
        squares = errors.square() * (len(cells) * (len(cells) - 1))
        return cls(log_mean, squares.masked_fill(log_mean == -math.inf, 0.0), len(cells))

    def and_more(self, other: CellEvidence) -> CellEvidence:
        """Of the draws of both, as if they had come at once."""
        count = self.num_draws + other.num_draws
        shares = [math.log(block.num_draws / count) for block in (self, other)]
        log_mean = torch.logaddexp(self.log_mean + shares[0], other.log_mean + shares[1])
        centre = log_mean.masked_fill(log_mean == -math.inf, 0.0)
        squares = torch.zeros_like(log_mean)
        for block in (self, other):
            relative = (block.log_mean - centre).exp()
            squares += block.squares * relative.square()
            squares += block.num_draws * (relative - 1).square()
        return CellEvidence(log_mean, squares, count)

    @property
    def value(self) -> float:
        """The log evidence without the bias of second order."""
        return float(self.log_mean.sum() + 0.5 * self._variances.sum())

    @property
    def error(self) -> float:
        """Its standard error, infinite where all draws of a cell have weight zero."""
        if bool((self.log_mean == -math.inf).any()):
            return math.inf
        return float(self._variances.sum().sqrt())

    @property
    def _variances(self) -> Tensor:  # (cells)
        return self.squares / (self.num_draws * (self.num_draws - 1))
