"""Radon in 85 counties of unequal sizes: varying intercepts and a predictor on each level.

    mu_a, beta, gamma ~ Normal(0, 2),   sigma_a, sigma_y ~ HalfNormal(1)
    alpha_j ~ Normal(mu_a + gamma u_j, sigma_a),                     counties j = 1..85
    y_i ~ Normal(alpha_{county(i)} + beta floor_i, sigma_y),         houses i = 1..891

Structure, sizes and true values are close to those of the Minnesota radon study (``y`` is the log
radon level, ``u`` the log uranium level of the county, ``floor`` is 1 if it was measured on the
first floor and not in the basement), but the data are simulated. Counties have from 1 to 114
houses: some intercepts are known from their houses, others only from the predictor of the county.

Minibatches are of houses. All counties are in every minibatch: the intercepts keep their whole
density in model and guide, and only the likelihood is scaled, by the number of houses over the
size of the minibatch. So the log joint density is right on average at any values of the latents,
also with a guide in which the intercepts depend on the globals.

Source: Gelman and Hill (2007), "Data analysis using regression and multilevel/hierarchical
models", chapter 12.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import ndtri
from torch import Tensor

from models.hierarchical_radon_exact import posterior_by_quadrature
from models.problem import Problem

__all__ = ["TRUTH", "data", "model", "problem"]

COUNTIES = 85
SEED = 2007
TRUTH = {"mu_a": 1.5, "beta": -0.7, "gamma": 0.7, "sigma_a": 0.3, "sigma_y": 0.75}

SOURCE = "simulated for this file, after Gelman and Hill (2007), chapter 12"


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The simulated houses and counties.

    The sizes of the counties are quantiles of a lognormal distribution with median 5, in growing
    order. The rest comes from the uniform numbers of a seeded PCG64 generator through inverse
    distribution functions, as NumPy may change its samplers of other distributions.

    Returns:
        ``y``, log radon, (houses,); ``county``, the index of the county, (houses,); ``floor``,
        0 or 1, (houses,); ``uranium``, centred log uranium, (counties,).

    Example:
        >>> y, county, floor, uranium = data()
        >>> y.shape, uranium.shape, county[:5]
        (torch.Size([891]), torch.Size([85]), tensor([0, 1, 2, 3, 4]))
    """
    dtype = torch.get_default_dtype()
    middles = (np.arange(COUNTIES) + 0.5) / COUNTIES
    sizes = np.maximum(1, np.round(5 * np.exp(1.24 * ndtri(middles)))).astype(int)
    county = np.repeat(np.arange(COUNTIES), sizes)

    uniform = np.random.Generator(np.random.PCG64(SEED)).random
    uranium = 0.35 * ndtri(uniform(COUNTIES))
    uranium -= uranium.mean()
    floor = (uniform(len(county)) < 0.17).astype(float)
    intercept = (
        TRUTH["mu_a"] + TRUTH["gamma"] * uranium + TRUTH["sigma_a"] * ndtri(uniform(COUNTIES))
    )
    noise = TRUTH["sigma_y"] * ndtri(uniform(len(county)))
    y = intercept[county] + TRUTH["beta"] * floor + noise
    return (
        torch.as_tensor(y, dtype=dtype),
        torch.as_tensor(county),
        torch.as_tensor(floor, dtype=dtype),
        torch.as_tensor(uranium, dtype=dtype),
    )


def model(
    y: Tensor,  # (houses,)
    county: Tensor,  # (houses,)
    floor: Tensor,  # (houses,)
    uranium: Tensor,  # (counties,)
    subsample_size: int | None = None,
    subsample: Tensor | None = None,
) -> None:
    """Varying intercepts ``alpha`` in a plate of counties, houses in another.

    Args:
        y: Log radon of every house, also when there are minibatches.
        county: The index of each house's county.
        floor: The predictor of the house.
        uranium: The predictor of the county.
        subsample_size: Number of houses in a random minibatch; None for all of them.
        subsample: The indices of the houses of a minibatch of your own.
    """
    zero = y.new_zeros(())
    mu_a = pyro.sample("mu_a", dist.Normal(zero, 2.0))
    beta = pyro.sample("beta", dist.Normal(zero, 2.0))
    gamma = pyro.sample("gamma", dist.Normal(zero, 2.0))
    sigma_a = pyro.sample("sigma_a", dist.HalfNormal(zero + 1.0))
    sigma_y = pyro.sample("sigma_y", dist.HalfNormal(zero + 1.0))
    with pyro.plate("counties", uranium.shape[-1]):
        alpha = pyro.sample("alpha", dist.Normal(mu_a + gamma * uranium, sigma_a))
    with pyro.plate("houses", y.shape[-1], subsample_size, subsample) as index:
        mean = alpha[..., county[index]] + beta * floor[index]
        pyro.sample("y", dist.Normal(mean, sigma_y), obs=y[index])


def problem(subsample_size: int | None = None) -> Problem:
    """All houses, or minibatches of them. Reference and evidence are those of all houses.

    Example:
        >>> case = problem(subsample_size=100)
        >>> case.reference["alpha"].mean.shape, round(float(case.reference["sigma_y"].mean), 3)
        (torch.Size([85]), 0.725)
    """
    y, county, floor, uranium = data()
    reference, log_evidence = posterior_by_quadrature(
        y.double().numpy(), county.numpy(), floor.double().numpy(), uranium.double().numpy()
    )
    return Problem(
        name="hierarchical radon",
        model=model,
        args=(y, county, floor, uranium),
        kwargs={"subsample_size": subsample_size},
        reference=reference,
        log_evidence=log_evidence,
        how="quadrature",
        source=SOURCE,
    )
