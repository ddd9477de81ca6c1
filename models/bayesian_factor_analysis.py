"""Bayesian factor analysis: loadings, means, precisions and factors are all latent.

    w_d ~ Normal(0, I_K / A),  m_d ~ Normal(0, 1 / B),  tau_d ~ Gamma(2, 1),    d = 1..D
    z_i ~ Normal(0, I_K),      x_id ~ Normal(w_d . z_i + m_d, 1 / tau_d),       i = 1..N

(variances as second arguments; A = 1, B = 1/2). Every site is conjugate given the others, the model
as a whole is not: coordinate ascent has updates in closed form, see
``bayesian_factor_analysis_updates``. Features lie along the last batch dimension, data along the
one before, so latents of both kinds broadcast without further thought. The posterior has the
symmetries of the factors, signs and rotations; mean field settles on one of them.

The data are either the wines of ``factor_analysis`` or simulated with known loadings.

Source: Bishop (1999), "Variational principal components"; Ghahramani and Beal (2000), "Variational
inference for Bayesian mixtures of factor analysers".
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy.special import ndtri
from torch import Tensor

__all__ = [
    "CONCENTRATION",
    "LOADING_PRECISION",
    "MEAN_PRECISION",
    "RATE",
    "model",
    "simulate",
]

LOADING_PRECISION, MEAN_PRECISION = 1.0, 0.5  # A and B
CONCENTRATION, RATE = 2.0, 1.0  # of the prior of tau
SEED = 2000


def simulate(
    num_data: int = 100, features: int = 6, latents: int = 2, seed: int = SEED
) -> tuple[Tensor, Tensor]:
    """Data, (N, D), and the loadings that they come from, (D, K); precisions of four, means zero.

    Example:
        >>> x, loadings = simulate(10)
        >>> x.shape, loadings.shape
        (torch.Size([10, 6]), torch.Size([6, 2]))
    """
    uniform = np.random.Generator(np.random.PCG64(seed)).random
    loadings = ndtri(uniform((features, latents)))
    z, noise = ndtri(uniform((num_data, latents))), ndtri(uniform((num_data, features)))
    x = z @ loadings.T + 0.5 * noise
    dtype = torch.get_default_dtype()
    return torch.as_tensor(x, dtype=dtype), torch.as_tensor(loadings, dtype=dtype)


def model(
    x: Tensor,  # (N, D)
    latents: int = 2,
    subsample_size: int | None = None,
) -> None:
    """Sites ``loadings``, ``mean``, ``tau`` in ``features``, ``z`` in ``data``, ``x`` in both.

    Args:
        x: The data, all of them, also when there are minibatches.
        latents: Number K of factors, the size of the events ``loadings`` and ``z``.
        subsample_size: Size of a random minibatch of data; None for all data.
    """
    features = pyro.plate("features", x.shape[1], dim=-1)
    data = pyro.plate("data", x.shape[0], subsample_size, dim=-2)
    zero = x.new_zeros(latents)
    with features:
        loadings = pyro.sample(
            "loadings", dist.Normal(zero, LOADING_PRECISION**-0.5).to_event(1)
        )  # (D, K)
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), MEAN_PRECISION**-0.5))  # (D,)
        tau = pyro.sample("tau", dist.Gamma(x.new_tensor(CONCENTRATION), RATE))  # (D,)
    with data as index:
        z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))  # (N, 1, K)
        with features:
            location = (loadings * z).sum(-1) + mean
            pyro.sample("x", dist.Normal(location, tau.rsqrt()), obs=x[index])
