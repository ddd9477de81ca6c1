"""One latent for every datum and a nonlinear decoder: points scattered around a parabola.

    z_i ~ Normal(0, 1),   x_i ~ Normal(f(z_i), 0.4),   f(z) = (z / 2, z^2 / 2),   i = 1..N

The decoder is fixed, so the data have posteriors of their own, by quadrature in one dimension. The
second coordinate tells the size of z and the first one, weakly, its sign. So posteriors are narrow
and nearly normal far out, wide and flat around the bottom, and in between they have two modes. A
normal family misses one of these (an approximation gap), and a network that gives all points their
normals has to jump from one sign to the other (an amortisation gap).

Source: made up for this file; the two gaps are those of Cremer, Li and Duvenaud (2018),
"Inference suboptimality in variational autoencoders".
"""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import ndtri
from torch import Tensor

from models.problem import Moments, Problem

__all__ = ["NOISE", "data", "decoder", "grid", "log_joint", "model", "problem"]

NOISE = 0.4
SEED = 2018

SOURCE = "made up for this file, after Cremer, Li and Duvenaud (2018)"


def decoder(
    z: Tensor,  # (*batch)
) -> Tensor:  # (*batch, 2)
    """The point on the parabola.

    Example:
        >>> decoder(torch.tensor(2.0))
        tensor([1., 2.])
    """
    return torch.stack([z / 2, z**2 / 2], -1)


def data(num_data: int = 2000, seed: int = SEED) -> tuple[Tensor, Tensor]:
    """Simulated points, (N, 2), and the latents that they come from, (N,).

    The uniform numbers of a seeded PCG64 generator through the normal quantile function.

    Example:
        >>> x, z = data(5)
        >>> x.shape, z.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """
    dtype = torch.get_default_dtype()
    normal = ndtri(np.random.Generator(np.random.PCG64(seed)).random((num_data, 3)))
    z = torch.as_tensor(normal[:, 0])
    x = decoder(z) + NOISE * torch.as_tensor(normal[:, 1:])
    return x.to(dtype), z.to(dtype)


def model(
    x: Tensor,  # (N, 2)
    subsample_size: int | None = None,
    subsample: Tensor | None = None,
) -> None:
    """A latent ``z`` for every point, in the plate ``data``.

    Args:
        x: The points, all of them, also when there are minibatches.
        subsample_size: Size of a random minibatch; None for all data.
        subsample: The indices of a minibatch of your own.
    """
    with pyro.plate("data", len(x), subsample_size, subsample) as index:
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(decoder(z), NOISE).to_event(1), obs=x[index])


def log_joint(
    z: Tensor,  # (*batch, 1) or (*batch, N)
    x: Tensor,  # (N, 2)
) -> Tensor:  # (*batch, N)
    """``log p(x_i, z)`` of every datum."""
    squares = z**2 + ((x - decoder(z)) ** 2).sum(-1) / NOISE**2
    return -0.5 * squares - 1.5 * math.log(2 * math.pi) - 2 * math.log(NOISE)


def grid(step: float = 0.02, end: float = 6.5, dtype: torch.dtype | None = None) -> Tensor:
    """Equally spaced values of z for the trapezoid rule, in the default dtype if none is given.

    The narrowest posteriors, far out, have a standard deviation of 0.1, so the rule is exact to
    many digits; less than 1e-9 of the prior is outside.

    Example:
        >>> grid().shape
        torch.Size([651])
    """
    dtype = dtype or torch.get_default_dtype()
    return torch.linspace(-end, end, 2 * round(end / step) + 1, dtype=dtype)


def posteriors(
    x: Tensor,  # (N, 2)
) -> tuple[Tensor, Tensor, Tensor]:
    """Log evidence, posterior mean and standard deviation of every datum, (N,) each."""
    z = grid(dtype=x.dtype)
    log_p = log_joint(z[:, None], x)
    log_evidence = torch.logsumexp(log_p, 0) + torch.log(z[1] - z[0])
    weight = torch.softmax(log_p, 0)
    mean = z @ weight
    variance = (weight * (z[:, None] - mean) ** 2).sum(0)
    return log_evidence, mean, variance.sqrt()


def problem(num_data: int = 2000, subsample_size: int | None = None) -> Problem:
    """Latents of all data, or minibatches of them. Reference and evidence are those of all data.

    Args:
        num_data: Number N of data, at least 1.
        subsample_size: Size of a random minibatch; None for all data.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> case = problem(num_data=10)
        >>> case.reference["z"].mean.shape
        torch.Size([10])
    """
    if num_data < 1:
        raise ValueError(f"num_data must be at least 1, got {num_data}")
    x, _ = data(num_data)
    log_evidence, mean, sd = posteriors(x.double())
    dtype = torch.get_default_dtype()
    return Problem(
        name="nonlinear latent",
        model=model,
        args=(x,),
        kwargs={"subsample_size": subsample_size},
        reference={"z": Moments(mean.to(dtype), sd.to(dtype))},
        log_evidence=float(log_evidence.sum()),
        how="quadrature",
        source=SOURCE,
        guides=("AutoNormal",),
    )
