"""Where true values lie in their posteriors on average: is a guide biased, too narrow, too wide?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument

__all__ = ["VSBCReading", "vsbc_reading"]

Bias = Literal["none", "too low", "too high"]
Width = Literal["right", "too narrow", "too wide"]


@dataclass(frozen=True)
class VSBCReading:
    """How a guide is wrong on average over the prior, if it is.

    Attributes:
        statistic: Kolmogorov-Smirnov distance between the probabilities p and 1 - p.
        symmetry_p: its exact p-value; a small one means bias.
        mean: of the probabilities; 1/2 without bias.
        bias: "too low" if the guide lies below the true values, "too high", or "none".
        spread: mean of ``|2p - 1|``; 1/2 for uniform probabilities.
        width_p: p-value of the test that it is.
        width: "too narrow" (probabilities pile up at 0 and 1), "too wide", or "right".
        sd_ratio: standard deviation of the posterior over the guide's, as if both were normal;
            too small for probabilities from few draws.
        words: the reading in a sentence.
    """

    statistic: float
    symmetry_p: float
    mean: float
    bias: Bias
    spread: float
    width_p: float
    width: Width
    sd_ratio: float
    words: str


def vsbc_reading(
    probabilities: Tensor,  # (N,)
    *,
    level: float = 0.05,
) -> VSBCReading:
    r"""Read the probabilities :math:`p_i = P_q(\theta < \theta_i)` of simulated true values.

    For the exact posterior they are uniform. If the guide has the right mean but c times too small
    a standard deviation (both normal), :math:`P(p < u) = \Phi(\Phi^{-1}(u) / c)`: symmetric, with
    too much at both ends for c > 1 (under-dispersed), a hump in the middle for c < 1
    (over-dispersed). Bias makes them asymmetric: a guide that is too low gives large p.

    Symmetry is tested by the distance of Kolmogorov and Smirnov between p and 1 - p. As these two
    samples are mirror images, the usual p-value for independent samples is too small; here it is
    exact: given the distances from 1/2 the sides are coin tosses, and the statistic is the largest
    excursion of their random walk. Width is tested by the mean of ``|2p - 1|``, which has
    expectation 1/2 and variance 1/12 if the probabilities are uniform. A biased guide also makes
    this mean too large, so that the width is told only where no bias is.

    Limits: averages over the prior, so it can be right on average and wrong for the data at hand;
    the prior itself passes; one scalar at a time.

    Args:
        probabilities: one for every simulation, in [0, 1].
        level: of both tests.

    Raises:
        InvalidArgument: for fewer than ten probabilities, or some outside of [0, 1].

    Source: Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work?"; Butler (1969) for the
        exact distribution under symmetry.

    Example:
        >>> u = (torch.arange(200) + 0.5) / 200
        >>> narrow = torch.special.ndtr(2.0 * torch.special.ndtri(u))
        >>> [vsbc_reading(p).words for p in (u, u.sqrt())]
        ['no sign of bias or of a wrong width', 'biased: the guide is too low']
        >>> vsbc_reading(narrow).width, round(vsbc_reading(narrow).sd_ratio, 1)
        ('too narrow', 2.0)
    """
    p = _checked_probabilities(probabilities)
    statistic, symmetry_p = _symmetry(p)
    mean = float(p.mean())
    spread = float((2 * p - 1).abs().mean())
    width_p = 2 * float(stats.norm.sf(abs(spread - 0.5) * math.sqrt(12 * len(p))))
    scores = torch.special.ndtri(p.clamp(1e-9, 1 - 1e-9))
    ratio = float(scores.std(correction=0))

    bias: Bias = "none"
    width: Width = "right"
    if symmetry_p < level:
        bias = "too low" if mean > 0.5 else "too high"
    if width_p < level:
        width = "too narrow" if spread > 0.5 else "too wide"
    return VSBCReading(
        statistic=statistic,
        symmetry_p=symmetry_p,
        mean=mean,
        bias=bias,
        spread=spread,
        width_p=width_p,
        width=width,
        sd_ratio=ratio,
        words=_words(bias, width, ratio),
    )


def _words(bias: Bias, width: Width, ratio: float) -> str:
    if bias != "none":
        return f"biased: the guide is {bias}"
    if width == "too narrow":
        return (
            "under-dispersed: the guide is too narrow, its standard deviation about "
            f"1/{ratio:.2g} of the posterior's"
        )
    if width == "too wide":
        return (
            "over-dispersed: the guide is too wide, its standard deviation about "
            f"{1 / ratio:.2g} times the posterior's"
        )
    return "no sign of bias or of a wrong width"


def _symmetry(p: Tensor) -> tuple[float, float]:
    """Distance between p and 1 - p, and the probability of one as large."""
    # rounded, so that mirror images are as far from 1/2 as they should be
    distance = ((p - 0.5).abs() * 2**40).round()
    order = distance.argsort(descending=True)
    walk = (p - 0.5)[order].sign().cumsum(0)
    last_of_ties = torch.ones(len(p), dtype=torch.bool)
    last_of_ties[:-1] = distance[order].diff() != 0
    tosses = int((distance > 0).sum())
    furthest = int(walk[last_of_ties].abs().max())
    return furthest / len(p), _excursion(tosses, furthest)


def _excursion(steps: int, furthest: int) -> float:
    """Probability that a simple random walk gets as far as ``furthest`` on either side."""
    if furthest == 0:
        return 1.0
    inside = np.zeros(2 * furthest - 1)  # positions between the two walls
    inside[furthest - 1] = 1.0
    for _ in range(steps):
        moved = np.zeros_like(inside)
        moved[1:] += 0.5 * inside[:-1]
        moved[:-1] += 0.5 * inside[1:]
        inside = moved
    return float(min(1.0, max(0.0, 1 - inside.sum())))


def _checked_probabilities(probabilities: Any) -> Tensor:
    if not isinstance(probabilities, Tensor) or probabilities.dim() != 1:
        raise InvalidArgument("probabilities must be a vector, one for every simulation.")
    if len(probabilities) < 10:
        raise InvalidArgument(
            f"probabilities: {len(probabilities)} simulations say nothing; run at least 10."
        )
    p = probabilities.detach().double()
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InvalidArgument("probabilities must lie in [0, 1].")
    return p
