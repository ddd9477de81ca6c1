"""A normal distribution bent along a parabola.

    x1 ~ Normal(0, 10),   x2 | x1 ~ Normal(b (100 - x1^2), 1),   no data, log evidence 0

This is ``(y1, y2 - b y1^2 + 100 b)`` with ``y1 ~ N(0, 100)`` and ``y2 ~ N(0, 1)``. The map has
Jacobian 1 and the offset makes both means 0. The coordinates are uncorrelated but far from
independent, so a full-rank normal guide does little better than a mean-field one.

The authors' bananas are the moderate one, b = 0.03, and the strong one, b = 0.1.

Source: Haario, Saksman and Tamminen (1999), "Adaptive proposal distribution for random walk
Metropolis algorithm", Computational Statistics 14.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch

from models.problem import Moments, Problem

__all__ = ["exact_guide", "model", "problem", "strong_problem"]

WIDTH = 10.0
MODERATE = 0.03
STRONG = 0.1


def model(bend: float = MODERATE) -> None:
    """The banana with bend ``b``; both sites are scalars."""
    x1 = pyro.sample("x1", dist.Normal(torch.zeros(()), WIDTH))
    pyro.sample("x2", dist.Normal(bend * (WIDTH**2 - x1**2), 1.0))


def exact_guide(bend: float = MODERATE) -> None:
    """The same distribution as a guide: there are no data."""
    model(bend)


def problem(bend: float = MODERATE) -> Problem:
    """The banana; both means are 0 and ``var(x2) = 1 + b^2 var(x1^2) = 1 + 2 b^2 10^4``.

    Args:
        bend: The number b, of either sign; 0 gives a normal distribution.

    Example:
        >>> round(float(problem().reference["x2"].sd) ** 2, 4)
        19.0
    """
    return Problem(
        name="banana",
        model=model,
        args=(bend,),
        exact_guide=exact_guide,
        reference={
            "x1": Moments.of(0.0, WIDTH),
            "x2": Moments.of(0.0, math.sqrt(1 + 2 * bend**2 * WIDTH**4)),
        },
        log_evidence=0.0,
        how="closed form",
        source="Haario, Saksman and Tamminen (1999)",
    )


def strong_problem() -> Problem:
    """The strongly bent banana, b = 0.1.

    Example:
        >>> round(float(strong_problem().reference["x2"].sd) ** 2, 4)
        201.0
    """
    return problem(STRONG)
