"""Normal means with normal noise: local latents with and without a global one, in closed form.

    problem():               z_n ~ N(0, 1),                   x_n ~ N(z_n, 1)
    hierarchical_problem():  mu ~ N(0, 1),  z_n ~ N(mu, 1),   x_n ~ N(z_n, 1)

In the first every datum has its own posterior N(x_n/2, 1/2), as in a variational autoencoder, so
importance weights belong to a datum, not to the data set. In the second they are tied by mu.
Both take a ``subsample_size``; model and guide then see the same minibatch.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "amortised_guide",
    "data",
    "exact_guide",
    "hierarchical_data",
    "hierarchical_exact_guide",
    "hierarchical_model",
    "hierarchical_problem",
    "model",
    "problem",
]

SOURCE = "made up for this file: equally spaced quantiles of the marginal distribution"


def data(size: int = 20) -> Tensor:
    """Equally spaced quantiles of the marginal N(0, 2), shape (size,): typical, without a seed.

    Example:
        >>> data(3).round(decimals=3)
        tensor([-1.3680,  0.0000,  1.3680])
    """
    probabilities = (torch.arange(size, dtype=torch.get_default_dtype()) + 0.5) / size
    return math.sqrt(2) * torch.special.ndtri(probabilities)


def hierarchical_data(size: int = 20) -> Tensor:
    """The quantiles of ``data`` around 1 instead of 0, shape (size,), so that mu is not 0.

    Example:
        >>> round(float(hierarchical_data().mean()), 4)
        1.0
    """
    return 1 + data(size)


def model(x: Tensor, subsample_size: int | None = None) -> None:
    """A standard normal latent per datum, seen with unit noise. ``x`` has shape (N,)."""
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[..., index])


def exact_guide(x: Tensor, subsample_size: int | None = None) -> None:
    """The posterior, ``z_n ~ N(x_n / 2, 1/2)``."""
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal(x[..., index] / 2, math.sqrt(0.5)))


def amortised_guide(x: Tensor, subsample_size: int | None = None) -> None:
    """An encoder, ``z_n ~ N(intercept + slope * x_n, scale)``.

    It contains the posterior: slope 1/2, intercept 0, scale sqrt(1/2). It starts at the prior.
    """
    slope = pyro.param("slope", lambda: torch.zeros(()))
    intercept = pyro.param("intercept", lambda: torch.zeros(()))
    scale = pyro.param("scale", lambda: torch.ones(()), constraint=constraints.positive)
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal(intercept + slope * x[..., index], scale))


def log_evidence(x: Tensor) -> float:
    """``sum_n log N(x_n; 0, 2)`` for data of shape (N,).

    Example:
        >>> round(log_evidence(torch.zeros(2)), 4)  # -log(4 pi)
        -2.531
    """
    return float(dist.Normal(0.0, math.sqrt(2)).log_prob(x.double()).sum())


def problem(subsample_size: int | None = None) -> Problem:
    """Local latents only. Reference and evidence are those of all data, whatever the minibatch.

    Example:
        >>> case = problem(subsample_size=5)
        >>> case.reference["z"].mean.shape, case.kwargs
        (torch.Size([20]), {'subsample_size': 5})
    """
    x = data()
    return Problem(
        name="conjugate normal",
        model=model,
        args=(x,),
        kwargs={"subsample_size": subsample_size},
        guide=amortised_guide,
        exact_guide=exact_guide,
        reference={"z": Moments(x / 2, torch.full_like(x, math.sqrt(0.5)))},
        log_evidence=log_evidence(x),
        how="closed form",
        source=SOURCE,
    )


def hierarchical_model(x: Tensor, subsample_size: int | None = None) -> None:
    """A common mean above the local latents. ``x`` has shape (N,)."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[..., index])


def global_posterior(x: Tensor) -> tuple[Tensor, float]:
    """Mean and variance of ``mu`` given all data: precision ``1 + N/2``, as ``x_n ~ N(mu, 2)``."""
    variance = 1 / (1 + x.shape[-1] / 2)
    return variance * x.sum(-1) / 2, variance


def hierarchical_exact_guide(x: Tensor, subsample_size: int | None = None) -> None:
    """The posterior ``q(mu) prod_n q(z_n | mu)`` with ``z_n | mu ~ N((mu + x_n) / 2, 1/2)``."""
    mean, variance = global_posterior(x)
    mu = pyro.sample("mu", dist.Normal(mean, math.sqrt(variance)))
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        pyro.sample("z", dist.Normal((mu + x[..., index]) / 2, math.sqrt(0.5)))


def hierarchical_log_evidence(x: Tensor) -> float:
    """Log density of data of shape (N,) under ``N(0, 2 I + 1 1^T)``.

    By the matrix determinant lemma and Sherman-Morrison, with ``v = 1 / (1 + N/2)``:
    ``log det = N log 2 - log v`` and the quadratic form is ``sum x^2 / 2 - v (sum x)^2 / 4``.

    Example:
        >>> round(hierarchical_log_evidence(torch.zeros(1)), 4)  # N(0, 3) at 0
        -1.4682
    """
    x = x.double()
    size = x.shape[-1]
    variance = 1 / (1 + size / 2)
    quadratic = float((x**2).sum() / 2 - variance * x.sum() ** 2 / 4)
    return -0.5 * (size * math.log(4 * math.pi) - math.log(variance) + quadratic)


def hierarchical_problem(subsample_size: int | None = None) -> Problem:
    """Local latents below a global one. Reference and evidence are those of all data.

    Example:
        >>> round(float(hierarchical_problem().reference["mu"].mean), 4)  # 10 / 11
        0.9091
    """
    x = hierarchical_data()
    mean, variance = global_posterior(x)
    local_sd = math.sqrt(0.5 + variance / 4)
    return Problem(
        name="hierarchical normal",
        model=hierarchical_model,
        args=(x,),
        kwargs={"subsample_size": subsample_size},
        exact_guide=hierarchical_exact_guide,
        reference={
            "mu": Moments.of(mean, math.sqrt(variance)),
            "z": Moments((mean + x) / 2, torch.full_like(x, local_sd)),
        },
        log_evidence=hierarchical_log_evidence(x),
        how="closed form",
        source=SOURCE,
    )
