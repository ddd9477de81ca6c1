"""A mixture of two Poisson distributions on Hasselblad's death counts, a slow case for EM.

    weights, rates: parameters,   z_n ~ Categorical(weights),   x_n ~ Poisson(rates[z_n])

The data are the deaths of women of 80 years and over that The Times of London reported on each of
1096 days of 1910-1912. EM needs thousands of steps: its rate of convergence is about 0.996.

Sources: Hasselblad (1969), "Estimation of finite mixtures of distributions from the exponential
family"; the maximum is that of the R package SQUAREM, Varadhan and Roland (2008).
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = [
    "COUNTS",
    "MAXIMUM",
    "MAX_LOG_LIKELIHOOD",
    "constrained",
    "data",
    "em_step",
    "model",
    "starts",
    "unconstrained",
]

COUNTS = (162, 267, 271, 185, 111, 61, 27, 8, 3, 1)  # days with 0, 1, ..., 9 deaths

# weight of the first component, its rate, and the rate of the second
MAXIMUM = (0.640114475404, 2.663404513996, 1.256095320343)
MAX_LOG_LIKELIHOOD = -1989.94586


def data() -> Tensor:  # (1096,)
    """The number of deaths on every day, in increasing order.

    Example:
        >>> x = data()
        >>> x.shape, x.sum()
        (torch.Size([1096]), tensor(2364.))
    """
    values = torch.arange(len(COUNTS), dtype=torch.get_default_dtype())
    return values.repeat_interleave(torch.tensor(COUNTS))


def model(
    x: Tensor,  # (N,)
) -> None:
    """A component ``z`` and a count ``x`` for every day, in the plate ``days``."""
    weights = pyro.param("weights", x.new_tensor([0.3, 0.7]), constraint=constraints.simplex)
    rates = pyro.param("rates", x.new_tensor([1.0, 2.5]), constraint=constraints.positive)
    with pyro.plate("days", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Poisson(rates[z]), obs=x)


def em_step(
    theta: Tensor,  # (*batch, 3)
    x: Tensor | None = None,  # (N,)
) -> tuple[Tensor, Tensor]:  # (*batch, 3), (*batch)
    """One step of EM from ``(weight, first rate, second rate)``, and the log-likelihood before it.

    With responsibilities ``h_n = p(z_n = first | x_n)`` the weight becomes the mean of h, and the
    rates the means of x weighted by h and 1 - h. Outside of the support, which is
    ``0 < weight < 1`` with positive rates, the log-likelihood is -inf.

    Args:
        theta: The parameters; any number of them at a time.
        x: Counts; Hasselblad's if None.

    Example:
        >>> theta = torch.tensor(MAXIMUM).double()
        >>> after, value = em_step(theta)
        >>> bool((after - theta).abs().max() < 1e-6), round(float(value), 4)
        (True, -1989.9459)
    """
    if x is None:
        values = torch.arange(len(COUNTS), dtype=theta.dtype)
        counts = torch.tensor(COUNTS, dtype=theta.dtype)
    else:
        values, counts = x.to(theta.dtype), torch.ones_like(x, dtype=theta.dtype)
    weight, *rates = (part[..., None] for part in theta.unbind(-1))
    inside = ((weight > 0) & (weight < 1) & (rates[0] > 0) & (rates[1] > 0))[..., 0]
    first, second = (
        share.log() + values * rate.log() - rate - (values + 1).lgamma()
        for share, rate in zip((weight, 1 - weight), rates, strict=True)
    )
    both = torch.logaddexp(first, second)
    responsibility = (first - both).exp()
    of_first, of_second = counts * responsibility, counts * (1 - responsibility)
    after = [
        of_first.sum(-1) / counts.sum(),
        (of_first * values).sum(-1) / of_first.sum(-1),
        (of_second * values).sum(-1) / of_second.sum(-1),
    ]
    log_likelihood = (counts * both).sum(-1)
    return torch.stack(after, -1), torch.where(inside, log_likelihood, -torch.inf)


def unconstrained(
    theta: Tensor,  # (*batch, 3)
) -> Tensor:  # (*batch, 3)
    """The logit of the weight and the logarithms of the rates.

    Example:
        >>> unconstrained(torch.tensor([0.5, 1.0, 1.0]))
        tensor([0., 0., 0.])
    """
    return torch.cat([theta[..., :1].logit(), theta[..., 1:].log()], -1)


def constrained(
    free: Tensor,  # (*batch, 3)
) -> Tensor:  # (*batch, 3)
    """The inverse of ``unconstrained``.

    Example:
        >>> constrained(torch.zeros(3))
        tensor([0.5000, 1.0000, 1.0000])
    """
    return torch.cat([free[..., :1].sigmoid(), free[..., 1:].exp()], -1)


def starts(number: int, seed: int = 0) -> Tensor:  # (number, 3)
    """Random parameters: a weight between 0.05 and 0.95 and rates between 0.2 and 4.

    Example:
        >>> starts(50).shape
        torch.Size([50, 3])
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(number, 3, generator=generator, dtype=torch.get_default_dtype())
    lowest, highest = uniform.new_tensor([0.05, 0.2, 0.2]), uniform.new_tensor([0.95, 4.0, 4.0])
    return lowest + (highest - lowest) * uniform
