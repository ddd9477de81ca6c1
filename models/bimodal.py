"""One latent number with two posterior modes of unequal mass, all of it in closed form.

A position is measured by a sensor that knows the distance well but mistakes the side with
probability 0.3:

    z ~ Normal(0, 6),   x | z ~ 0.7 Normal(z, 1) + 0.3 Normal(-z, 1),   x = -3

Prior and noise are symmetric, so the posterior is exactly ``0.7 N(c x, c) + 0.3 N(-c x, c)`` with
variance ``c = 36/37``: modes at -2.92 and 2.92, 5.9 within-mode standard deviations apart.
A normal guide fitted by reverse KL sits on one mode; the forward-KL optimum among normals has the
posterior's mean and standard deviation and lies over both. The prior covers both modes too.

``mixture_problem`` is the same picture with round numbers, ``0.7 N(-3, 1) + 0.3 N(3, 1)``.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "data",
    "exact_guide",
    "mixture_exact_guide",
    "mixture_model",
    "mixture_problem",
    "model",
    "problem",
]

PRIOR_SCALE = 6.0
NOISE_SCALE = 1.0
RIGHT_SIDE = 0.7
MODE = 3.0

SOURCE = "made up for this file"


def data() -> Tensor:
    """The one measurement, a scalar.

    Example:
        >>> data()
        tensor(-3.)
    """
    return torch.tensor(-MODE)


def two_sided(centre: Tensor, scale: float) -> dist.MixtureSameFamily:
    """The mixture ``0.7 N(centre, scale) + 0.3 N(-centre, scale)``, batch shape of ``centre``.

    Args:
        centre: Where the heavier component is, of any shape.
        scale: Standard deviation of both components.

    Example:
        >>> round(float(two_sided(torch.tensor(-3.0), 1.0).mean), 4)
        -1.2
    """
    sides = dist.Categorical(probs=centre.new_tensor([RIGHT_SIDE, 1 - RIGHT_SIDE]))
    return dist.MixtureSameFamily(sides, dist.Normal(torch.stack([centre, -centre], -1), scale))


def two_sided_moments(centre: float, variance: float) -> Moments:
    """Mean and standard deviation of ``0.7 N(centre, variance) + 0.3 N(-centre, variance)``."""
    mean = (2 * RIGHT_SIDE - 1) * centre
    return Moments.of(mean, math.sqrt(variance + centre**2 - mean**2))


def model(x: Tensor) -> None:
    """The position ``z`` given a measurement ``x`` (a scalar) that may have the wrong sign."""
    z = pyro.sample("z", dist.Normal(torch.zeros(()), PRIOR_SCALE))
    pyro.sample("x", two_sided(z, NOISE_SCALE), obs=x)


def posterior_variance() -> float:
    """Variance of ``z`` within each mode, ``1 / (1/36 + 1) = 36/37``."""
    return 1 / (PRIOR_SCALE**-2 + NOISE_SCALE**-2)


def exact_guide(x: Tensor) -> None:
    """The posterior of ``z`` as a guide; it has no ``rsample``."""
    variance = posterior_variance()
    pyro.sample("z", two_sided(x * variance / NOISE_SCALE**2, math.sqrt(variance)))


def problem() -> Problem:
    """The position problem: posterior mean -1.1676, standard deviation 2.8513.

    Example:
        >>> moments = problem().reference["z"]
        >>> round(float(moments.mean), 4), round(float(moments.sd), 4)
        (-1.1676, 2.8513)
    """
    x = data()
    variance = posterior_variance()
    marginal_scale = math.hypot(PRIOR_SCALE, NOISE_SCALE)
    return Problem(
        name="bimodal position",
        model=model,
        args=(x,),
        exact_guide=exact_guide,
        reference={"z": two_sided_moments(-MODE * variance / NOISE_SCALE**2, variance)},
        log_evidence=float(dist.Normal(0.0, marginal_scale).log_prob(x.double())),
        how="closed form",
        source=SOURCE,
        guides=("AutoNormal",),
    )


def mixture_model() -> None:
    """The target ``0.7 N(-3, 1) + 0.3 N(3, 1)`` as a prior Normal(0, 6) and a correcting factor."""
    prior = dist.Normal(torch.zeros(()), PRIOR_SCALE)
    z = pyro.sample("z", prior)
    target = two_sided(torch.tensor(-MODE), 1.0)
    pyro.factor("correction", target.log_prob(z) - prior.log_prob(z))


def mixture_exact_guide() -> None:
    """The target of ``mixture_model`` as a guide; it has no ``rsample``."""
    pyro.sample("z", two_sided(torch.tensor(-MODE), 1.0))


def mixture_problem() -> Problem:
    """The mixture target: mean -1.2, standard deviation sqrt(8.56) = 2.926, log evidence 0.

    Example:
        >>> moments = mixture_problem().reference["z"]
        >>> round(float(moments.mean), 4), round(float(moments.sd), 4)
        (-1.2, 2.9257)
    """
    return Problem(
        name="bimodal mixture",
        model=mixture_model,
        exact_guide=mixture_exact_guide,
        reference={"z": two_sided_moments(-MODE, 1.0)},
        log_evidence=0.0,
        how="closed form",
        source=SOURCE,
        guides=("AutoNormal",),
    )
