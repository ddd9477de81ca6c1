"""What a restricted E-step costs: two causes of one effect, and a weight that comes out too small.

    z_1, z_2 ~ Normal(0, 1),   x = w (z_1 + z_2) + Normal(0, sigma^2)   for every datum

Given x the two causes are correlated: they explain x away. With ``c = 2 w^2 + sigma^2``

    x ~ Normal(0, c),   z_1 + z_2 | x ~ Normal(2 w x / c, 2 sigma^2 / c),

and the best independent ``q(z_1) q(z_2)`` has the right means ``w x / c`` and the variances
``sigma^2 / (sigma^2 + w^2)``. The bound misses the log likelihood of every datum by

    gap(w) = KL(q || p) = log(sigma^2 + w^2) - log(sigma^2 c) / 2,

the same for every x. It grows with w, so variational EM, which climbs log likelihood minus gap,
stops at a smaller w. With ``V`` the mean of ``x^2`` and ``s = sigma^2`` known, the derivative with
respect to ``w^2`` is zero where ``V (s + w^2) = (s + 2 w^2)^2``, that is at

    w^2 = (V - 4 s + sqrt(V (V + 8 s))) / 8,          exact EM: w^2 = (V - s) / 2,

if V > s, and 0 otherwise. The data have V equal to its expectation under the true parameters, as
infinitely many data would: what is left is bias. Exact EM has none.

If sigma is to be learnt too the bias is complete. The likelihood knows w and sigma by c alone, and
the gap is zero at w = 0 only: the bound is largest at ``w = 0, sigma^2 = V``, and exact EM stops
anywhere on the ridge ``2 w^2 + sigma^2 = V``. Near w = 0 the gap is ``(w / sigma)^4 / 2``, so the
approach is slow.

Source: the effect is that of Turner and Sahani (2011), "Two problems with variational expectation
maximisation for time-series models"; this example and its closed form were made up for this file.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = [
    "CASES",
    "bound",
    "data",
    "exact_em_step",
    "exact_weight",
    "gap",
    "guide",
    "log_likelihood",
    "model",
    "variational_em_step",
    "variational_em_step_with_noise",
    "variational_weight",
]

CASES = ((1.0, 1.0), (1.0, 0.25), (2.0, 0.25), (0.5, 1.0))  # true w and sigma^2


def data(w: float, variance: float, number: int = 50) -> Tensor:  # (number,)
    """Quantiles of the normal, stretched so that the mean of ``x^2`` is ``2 w^2 + variance``.

    Example:
        >>> (data(1.0, 0.25) ** 2).mean()
        tensor(2.2500)
    """
    probabilities = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    x = torch.special.ndtri(probabilities)
    x = x * ((2 * w**2 + variance) / (x**2).mean()).sqrt()
    return x.to(torch.get_default_dtype())


def model(
    x: Tensor,  # (N,)
    variance: float | None = None,
    subsample_size: int | None = None,
) -> None:
    """Sites ``z_1``, ``z_2`` and ``x`` in the plate ``data``; parameters ``w`` and ``sigma``.

    Args:
        x: The data.
        variance: The variance of the noise, if it is known; otherwise ``sigma`` is a parameter.
        subsample_size: Size of a random minibatch; None for all data.
    """
    w = pyro.param("w", lambda: torch.tensor(0.3))
    if variance is None:
        sigma = pyro.param("sigma", lambda: torch.tensor(1.0), constraint=constraints.positive)
    else:
        sigma = x.new_tensor(math.sqrt(variance))
    with pyro.plate("data", x.shape[0], subsample_size, dim=-1) as index:
        z_1 = pyro.sample("z_1", dist.Normal(x.new_zeros(()), 1.0))
        z_2 = pyro.sample("z_2", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(w * (z_1 + z_2), sigma), obs=x[index])


def guide(
    x: Tensor,  # (N,)
    variance: float | None = None,
    subsample_size: int | None = None,
) -> None:
    """The best independent normals at the model's parameters as they are, without gradients.

    Run ``model`` first: it makes the parameters.
    """
    w = pyro.param("w").detach()
    s = pyro.param("sigma").detach() ** 2 if variance is None else x.new_tensor(variance)
    with pyro.plate("data", x.shape[0], subsample_size, dim=-1) as index:
        mean, sd = w * x[index] / (2 * w**2 + s), (s / (s + w**2)).sqrt()
        pyro.sample("z_1", dist.Normal(mean, sd))
        pyro.sample("z_2", dist.Normal(mean, sd))


def log_likelihood(
    w: Tensor,  # (*batch)
    variance: Tensor | float,  # (*batch)
    second_moment: float,
) -> Tensor:  # (*batch)
    """Mean of ``log p(x)`` over data whose squares have the mean ``second_moment``.

    Example:
        >>> log_likelihood(torch.tensor(0.0), 1.0, 0.0)  # -log(2 pi) / 2
        tensor(-0.9189)
    """
    total = 2 * w**2 + variance
    return -0.5 * ((2 * math.pi * total).log() + second_moment / total)


def gap(
    w: Tensor,  # (*batch)
    variance: Tensor | float,  # (*batch)
) -> Tensor:  # (*batch)
    """Log likelihood minus the largest bound with independent causes, for every datum.

    Example:
        >>> gap(torch.tensor([0.0, 1.0]), 1.0)  # the second is log(2 / sqrt(3))
        tensor([0.0000, 0.1438])
    """
    variance = torch.as_tensor(variance, dtype=w.dtype)
    ratio = w**2 / variance
    return torch.log1p(ratio) - 0.5 * torch.log1p(2 * ratio)


def bound(
    w: Tensor,  # (*batch)
    variance: Tensor | float,  # (*batch)
    second_moment: float,
) -> Tensor:  # (*batch)
    """What variational EM climbs: the mean log likelihood minus the gap.

    Example:
        >>> bound(torch.tensor(0.0), 1.0, 0.0)
        tensor(-0.9189)
    """
    return log_likelihood(w, variance, second_moment) - gap(w, variance)


def exact_weight(second_moment: float, variance: float) -> float:
    """The most likely ``|w|`` for a known variance of the noise, where exact EM ends.

    Example:
        >>> exact_weight(2 * 2.0**2 + 0.25, 0.25)
        2.0
    """
    return math.sqrt(max(second_moment - variance, 0.0) / 2)


def variational_weight(second_moment: float, variance: float) -> float:
    """The ``|w|`` with the largest bound, where EM with independent causes ends.

    Example:
        >>> [round(variational_weight(2 * w**2 + s, s), 4) for w, s in CASES]
        [0.7701, 0.7367, 1.4338, 0.3992]
    """
    if second_moment <= variance:
        return 0.0
    root = math.sqrt(second_moment * (second_moment + 8 * variance))
    return math.sqrt((second_moment - 4 * variance + root) / 8)


def exact_em_step(
    w: Tensor,  # (*batch)
    variance: Tensor | float,
    second_moment: float,
) -> Tensor:  # (*batch)
    """One step of EM for w: ``mean x E[z_1 + z_2] / mean E[(z_1 + z_2)^2]``.

    Example:
        >>> exact_em_step(torch.tensor(1.0), 1.0, 3.0)  # is already there
        tensor(1.0000)
    """
    total = 2 * w**2 + variance
    return _regress(w, total, 2 * variance / total, second_moment)


def variational_em_step(
    w: Tensor,  # (*batch)
    variance: Tensor | float,
    second_moment: float,
) -> Tensor:  # (*batch)
    """The same with the moments of the best independent causes, which know the sum less well.

    Its variance is ``2 s / (s + w^2)`` in place of ``2 s / (s + 2 w^2)``: independent causes do not
    make up for each other. A larger ``E[(z_1 + z_2)^2]`` makes w smaller.

    Example:
        >>> variational_em_step(torch.tensor(1.0), 1.0, 3.0) < 1
        tensor(True)
    """
    return _regress(w, 2 * w**2 + variance, 2 * variance / (variance + w**2), second_moment)


def _regress(w: Tensor, total: Tensor, sum_variance: Tensor, second_moment: float) -> Tensor:
    slope = 2 * w / total  # of E[z_1 + z_2] in x
    return slope * second_moment / (slope**2 * second_moment + sum_variance)


def variational_em_step_with_noise(
    w: Tensor,  # (*batch)
    variance: Tensor,  # (*batch)
    second_moment: float,
) -> tuple[Tensor, Tensor]:  # (*batch) each
    """One step for w and the variance of the noise, which is what is left of x on average.

    Example:
        >>> w, s = variational_em_step_with_noise(torch.tensor(1.0), torch.tensor(1.0), 3.0)
        >>> w < 1, s > 1
        (tensor(True), tensor(True))
    """
    slope = 2 * w / (2 * w**2 + variance)
    w_new = variational_em_step(w, variance, second_moment)
    # At the best w, mean E[(x - w u)^2] = mean x^2 - w mean x E[u], with u the sum of the causes.
    return w_new, second_moment * (1 - w_new * slope)
