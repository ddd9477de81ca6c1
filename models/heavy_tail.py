"""Targets with Student-t tails, which no guide with normal tails can cover.

    problem():                x_i ~ StudentT(nu),  i = 1..d
    tail_nuisance_problem():  x_i ~ StudentT(nu),  i = 1..d-1,   y ~ Normal(x_{d-1}, 1)

with no data and log evidence 0. Under a guide with normal tails the weights ``p/q`` have no
moments at all (tail index 1), however good the fit is to the eye. In the second target what
matters, ``y | x``, is an ordinary normal, but a guide gets it wrong if the tails of the nuisance
``x`` lead it astray.

With ``nu <= 1`` there is no mean, with ``nu <= 2`` no standard deviation: such sites have exact
quantiles and no moments. ``nu = 1`` is the Cauchy distribution.

Sources: Jaini, Kobyzev, Yu and Brubaker (2020), "Tails of Lipschitz triangular flows"; Hickling
and Prangle (2025), "Flexible tails for normalizing flows", for the nuisance target.
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

from models.problem import Moments, Problem, Quantiles

__all__ = [
    "cauchy_problem",
    "exact_guide",
    "model",
    "nuisance_quantile",
    "problem",
    "student_t_quantile",
    "tail_nuisance_exact_guide",
    "tail_nuisance_model",
    "tail_nuisance_problem",
]

DEGREES = 3.0
DIMENSION = 5

SOURCE = "Jaini et al. (2020); Hickling and Prangle (2025)"


def tails(degrees: float, dimension: int) -> dist.Distribution:
    """Independent Student-t variables of event shape (dimension,)."""
    return dist.StudentT(torch.tensor(degrees), torch.zeros(dimension), 1.0).to_event(1)


def model(degrees: float = DEGREES, dimension: int = DIMENSION) -> None:
    """Independent Student-t variables, a site ``x`` of event shape (dimension,)."""
    pyro.sample("x", tails(degrees, dimension))


def exact_guide(degrees: float = DEGREES, dimension: int = DIMENSION) -> None:
    """The same distribution as a guide: there are no data."""
    model(degrees, dimension)


def tail_nuisance_model(degrees: float = 1.0, dimension: int = DIMENSION) -> None:
    """Student-t nuisances ``x`` of event shape (dimension - 1,), and ``y`` around the last one."""
    x = pyro.sample("x", tails(degrees, dimension - 1))
    pyro.sample("y", dist.Normal(x[..., -1], 1.0))


def tail_nuisance_exact_guide(degrees: float = 1.0, dimension: int = DIMENSION) -> None:
    """The same distribution as a guide: there are no data."""
    tail_nuisance_model(degrees, dimension)


def student_t_quantile(probabilities: ArrayLike, degrees: float) -> Tensor:
    """Quantiles of the Student-t distribution, of the shape of the probabilities.

    Args:
        probabilities: Between 0 and 1.
        degrees: Degrees of freedom, positive.

    Example:
        >>> student_t_quantile([0.5, 0.75], 1.0)
        tensor([0., 1.])
    """
    return torch.as_tensor(stats.t.ppf(probabilities, degrees), dtype=torch.get_default_dtype())


def nuisance_cdf(y: float, degrees: float) -> float:
    """``P(x + e < y)`` for ``x ~ StudentT(nu)`` and a standard normal e, as ``E_e[T(y - e)]``.

    The trapezoid rule in e. ``T`` is analytic within sqrt(nu) of the real line, so the error is
    of the order of ``exp(-2 pi sqrt(nu) / step)``: nothing at nu = 1.
    """
    step = 0.05
    noise = np.arange(-9.0, 9.0 + step / 2, step)
    weight = step * stats.norm.pdf(noise)
    return float((weight * stats.t.cdf(y - noise, degrees)).sum())


def nuisance_quantile(probabilities: ArrayLike, degrees: float) -> Tensor:
    """Quantiles of ``y`` in the nuisance target, of the shape of the probabilities.

    The noise moves a quantile of ``x`` by less than 10, which brackets the root. Quantiles in the
    upper half are those of the lower half with the sign changed, where the distribution function
    does not lose digits.

    Args:
        probabilities: Strictly between 0 and 1.
        degrees: Degrees of freedom, at least 0.1.

    Example:
        >>> nuisance_quantile([0.5, 0.75], 1.0).round(decimals=4)
        tensor([0.0000, 1.3725])
    """
    given = np.asarray(probabilities, dtype=float)

    def lower_quantile(p: float) -> float:
        guess = float(stats.t.ppf(p, degrees))

        def excess(y: float) -> float:
            return nuisance_cdf(y, degrees) - p

        return optimize.brentq(excess, guess - 10, guess + 10, xtol=1e-12, rtol=1e-14)

    lower = np.array([lower_quantile(min(p, 1 - p)) for p in given.ravel()])
    values = np.where(given.ravel() > 0.5, -lower, lower).reshape(given.shape)
    return torch.as_tensor(values, dtype=torch.get_default_dtype())


def student_t_quantiles(degrees: float, dimension: int) -> Quantiles:
    """The quantiles of a site of event shape (dimension,)."""

    def quantiles(probabilities: Tensor) -> Tensor:
        return student_t_quantile(probabilities, degrees)[..., None].expand(-1, dimension)

    return quantiles


def variance(degrees: float) -> float:
    """Variance of a Student-t variable, infinite for two degrees of freedom and less."""
    return degrees / (degrees - 2) if degrees > 2 else math.inf


def check(degrees: float, dimension: int, smallest: int) -> None:
    """Refuse arguments that are out of range."""
    if not degrees > 0:
        raise ValueError(f"degrees must be positive, got {degrees}")
    if dimension < smallest:
        raise ValueError(f"dimension must be at least {smallest}, got {dimension}")


def problem(degrees: float = DEGREES, dimension: int = DIMENSION) -> Problem:
    """Independent Student-t variables; with moments if there are more than 2 degrees of freedom.

    Args:
        degrees: Degrees of freedom, positive.
        dimension: How many variables, at least 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> problem(degrees=4.0, dimension=2).reference["x"].sd
        tensor([1.4142, 1.4142])
    """
    check(degrees, dimension, smallest=1)
    sd = torch.full((dimension,), math.sqrt(variance(degrees)))
    moments = {"x": Moments(torch.zeros_like(sd), sd)}
    return Problem(
        name=f"student t, {degrees:g} degrees",
        model=model,
        args=(degrees, dimension),
        exact_guide=exact_guide,
        reference=moments if degrees > 2 else {},
        log_evidence=0.0,
        how="closed form",
        source=SOURCE,
        quantiles={"x": student_t_quantiles(degrees, dimension)},
    )


def cauchy_problem() -> Problem:
    """Independent Cauchy variables: one degree of freedom, no moments.

    Example:
        >>> cauchy_problem().quantiles["x"](torch.tensor([0.75])).round(decimals=4)
        tensor([[1., 1., 1., 1., 1.]])
    """
    return problem(degrees=1.0)


def tail_nuisance_problem(degrees: float = 1.0, dimension: int = DIMENSION) -> Problem:
    """Heavy-tailed nuisances and a normal around one of them.

    Args:
        degrees: Degrees of freedom of the nuisances, positive.
        dimension: How many variables in all, at least 2.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> tail_nuisance_problem(degrees=4.0).reference["y"].sd  # sqrt(2 + 1)
        tensor(1.7321)
    """
    check(degrees, dimension, smallest=2)
    sd = torch.full((dimension - 1,), math.sqrt(variance(degrees)))
    moments = {
        "x": Moments(torch.zeros_like(sd), sd),
        "y": Moments.of(0.0, math.sqrt(variance(degrees) + 1)),
    }
    return Problem(
        name=f"tail nuisance, {degrees:g} degrees",
        model=tail_nuisance_model,
        args=(degrees, dimension),
        exact_guide=tail_nuisance_exact_guide,
        reference=moments if degrees > 2 else {},
        log_evidence=0.0,
        how="closed form; quantiles of y by quadrature",
        source=SOURCE,
        quantiles={
            "x": student_t_quantiles(degrees, dimension - 1),
            "y": lambda probabilities: nuisance_quantile(probabilities, degrees),
        },
    )
