"""Neal's funnel: the scale of nine numbers is itself unknown, over four orders of magnitude.

    v ~ Normal(0, 3),   x_i ~ Normal(0, exp(v / 2)),  i = 1..9,   no data, log evidence 0

The neck (v far below 0) is thin, the mouth (v above 0) wide, so no normal guide fits both: reverse
KL shrinks into the body and understates the spread of ``v``. A guide in which the scale of ``x``
depends on ``v`` contains the target.

The moments are closed forms: ``E[x^2] = E[exp(v)] = exp(s^2 / 2)`` for ``v ~ N(0, s^2)``. At
``s = 3`` draws estimate the standard deviation of ``x`` badly: the kurtosis is
``3 exp(s^2) = 24309``. Compare ``v``, or the quantiles of ``x``, which are exact too.

Source: Neal (2003), "Slice sampling", section 8.
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from scipy import optimize, stats
from torch import Tensor

from models.problem import Moments, Problem

__all__ = ["exact_guide", "local_quantile", "local_sd", "model", "problem"]

DIMENSION = 10
SCALE_SD = 3.0


def model(dimension: int = DIMENSION, scale_sd: float = SCALE_SD) -> None:
    """The funnel: ``v``, a scalar, and ``x`` in a plate of ``dimension - 1``."""
    v = pyro.sample("v", dist.Normal(torch.zeros(()), scale_sd))
    with pyro.plate("locals", dimension - 1):
        pyro.sample("x", dist.Normal(torch.zeros(()), (v / 2).exp()))


def exact_guide(dimension: int = DIMENSION, scale_sd: float = SCALE_SD) -> None:
    """The same distribution as a guide: there are no data."""
    model(dimension, scale_sd)


def local_sd(scale_sd: float = SCALE_SD) -> float:
    """Standard deviation of each ``x_i``, ``exp(s^2 / 4)``.

    Args:
        scale_sd: The standard deviation s of ``v``.

    Example:
        >>> round(local_sd(3.0), 4)
        9.4877
    """
    return math.exp(scale_sd**2 / 4)


def local_cdf(x: float, scale_sd: float = SCALE_SD) -> float:
    """``P(x_i < x) = E_v[Phi(x exp(-v / 2))]``, by the trapezoid rule in ``v``.

    The integrand is analytic and bounded within pi/2 of the real line, where the rule's error is
    of the order of ``exp(-pi^2 / step)``: nothing at 0.15.
    """
    step = 0.05
    standard = np.arange(-9.0, 9.0 + step / 2, step)
    weight = step * stats.norm.pdf(standard)
    return float((weight * stats.norm.cdf(x * np.exp(-scale_sd * standard / 2))).sum())


def local_quantile(probabilities: ArrayLike, scale_sd: float = SCALE_SD) -> Tensor:
    """Quantiles of each ``x_i``, of the shape of the probabilities.

    Quantiles in the upper half are those of the lower half with the sign changed.

    Args:
        probabilities: Between 1e-9 and 1 - 1e-9.
        scale_sd: The standard deviation s of ``v``, at most 3.

    Example:
        >>> local_quantile([0.5, 0.75, 0.95]).round(decimals=4)
        tensor([0.0000, 0.5740, 5.3055])
    """
    given = np.asarray(probabilities, dtype=float)
    far = 10 * math.exp(4 * scale_sd)

    def lower_quantile(p: float) -> float:
        def excess(x: float) -> float:
            return local_cdf(x, scale_sd) - p

        return 0.0 if p == 0.5 else optimize.brentq(excess, -far, 0.0, xtol=1e-12, rtol=1e-14)

    lower = np.array([lower_quantile(min(p, 1 - p)) for p in given.ravel()])
    values = np.where(given.ravel() > 0.5, -lower, lower).reshape(given.shape)
    return torch.as_tensor(values, dtype=torch.get_default_dtype())


def problem(dimension: int = DIMENSION, scale_sd: float = SCALE_SD) -> Problem:
    """The funnel in the given dimension: one ``v``, the others ``x``.

    Args:
        dimension: How many numbers there are, at least 2; 10 is Neal's.
        scale_sd: Standard deviation of ``v``, positive; 3 is Neal's.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> problem(dimension=3).reference["x"].sd
        tensor([9.4877, 9.4877])
    """
    if dimension < 2:
        raise ValueError(f"dimension must be at least 2, got {dimension}")
    if not scale_sd > 0:
        raise ValueError(f"scale_sd must be positive, got {scale_sd}")
    sd = torch.full((dimension - 1,), local_sd(scale_sd))

    def local_quantiles(probabilities: Tensor) -> Tensor:
        return local_quantile(probabilities, scale_sd)[:, None].expand(-1, dimension - 1)

    return Problem(
        name="funnel",
        model=model,
        args=(dimension, scale_sd),
        exact_guide=exact_guide,
        reference={"v": Moments.of(0.0, scale_sd), "x": Moments(torch.zeros_like(sd), sd)},
        log_evidence=0.0,
        how="closed form; quantiles by quadrature",
        source="Neal (2003), Slice sampling, section 8",
        quantiles={"x": local_quantiles},
    )
