"""Factor analysis and probabilistic principal components by maximum likelihood, with exact EM.

    z_i ~ Normal(0, I_K),   x_i | z_i ~ Normal(W z_i + m, diag(v)),   i = 1..N

with loadings W of shape (D, K), a mean m and variances v, one for every feature in factor analysis
and a common one in probabilistic principal component analysis. Marginally
``x_i ~ Normal(m, C)`` with ``C = W W^T + diag(v)``, and

    z_i | x_i ~ Normal(S W^T diag(v)^-1 (x_i - m), S),   S = (I + W^T diag(v)^-1 W)^-1.

EM regresses x on the posterior of z (Rubin and Thayer, 1982). With a common variance the maximum
has a closed form: ``W = U (L - v)^(1/2)`` with the K largest eigenvalues L of the covariance (over
N) and their eigenvectors U, and v is the mean of the other eigenvalues (Tipping and Bishop, 1999).
Neither model knows W from W R, with an orthogonal R: compare ``W W^T``, or the log likelihood.

The data are the 178 Italian wines of scikit-learn, thirteen measurements each, in units of the
standard deviation around the mean. With two factors no variance goes to zero there.

Sources: Rubin and Thayer (1982), "EM algorithms for ML factor analysis"; Tipping and Bishop (1999),
"Probabilistic principal component analysis"; Forina et al. (1988), the wines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

__all__ = [
    "Parameters",
    "current_parameters",
    "data",
    "em_step",
    "exact_guide",
    "log_likelihood",
    "maximum",
    "model",
    "posterior",
    "principal_components",
    "random_start",
]


def data() -> Tensor:  # (178, 13)
    """The wines, standardised.

    Example:
        >>> data().shape
        torch.Size([178, 13])
    """
    from sklearn.datasets import load_wine

    measured = load_wine().data
    standardised = (measured - measured.mean(0)) / measured.std(0)
    return torch.as_tensor(standardised, dtype=torch.get_default_dtype())


@dataclass(frozen=True)
class Parameters:
    """What is learnt.

    Attributes:
        loadings: W, shape (D, K).
        mean: m, shape (D,).
        variance: v, shape (D,), or () where it is common to all features.
    """

    loadings: Tensor
    mean: Tensor
    variance: Tensor


def model(
    x: Tensor,  # (N, D)
    latents: int = 2,
    subsample_size: int | None = None,
    *,
    common: bool = False,
) -> None:
    """Factors ``z`` and features ``x`` in ``data``; parameters ``loadings, mean, variance``.

    Args:
        x: The data, all of them, also when there are minibatches.
        latents: Number K of factors.
        subsample_size: Size of a random minibatch; None for all data.
        common: Whether all features have one variance, as in principal component analysis.
    """
    size = x.shape[-1]
    loadings = pyro.param("loadings", lambda: torch.randn(size, latents).to(x))
    mean = pyro.param("mean", lambda: x.mean(0))
    variance = pyro.param(
        "variance",
        lambda: x.new_ones(() if common else (size,)),
        constraint=constraints.positive,
    )
    with pyro.plate("data", x.shape[0], subsample_size, dim=-1) as index:
        z = pyro.sample("z", dist.Normal(x.new_zeros(latents), 1.0).to_event(1))
        given = dist.Normal(z @ loadings.T + mean, variance.sqrt()).to_event(1)
        pyro.sample("x", given, obs=x[index])


def exact_guide(
    x: Tensor,  # (N, D)
    latents: int = 2,
    subsample_size: int | None = None,
    *,
    common: bool = False,
) -> None:
    """The posterior of ``z`` at the model's parameters as they are, without gradients.

    Run ``model`` first: it makes the parameters.
    """
    parameters = current_parameters()
    with pyro.plate("data", x.shape[0], subsample_size, dim=-1) as index:
        mean, covariance = posterior(parameters, x[index])
        pyro.sample("z", dist.MultivariateNormal(mean, covariance))


def current_parameters() -> Parameters:
    """The parameters of ``model`` as they are now, or as handlers substitute them, detached."""
    return Parameters(*(pyro.param(name).detach() for name in ("loadings", "mean", "variance")))


def random_start(
    x: Tensor,  # (N, D)
    latents: int = 2,
    *,
    common: bool = False,
) -> Parameters:
    """Where ``model`` starts: normal loadings by torch's own generator, unit variances.

    Example:
        >>> random_start(data(), common=True).variance
        tensor(1.)
    """
    size = x.shape[-1]
    variance = x.new_ones(() if common else (size,))
    return Parameters(torch.randn(size, latents).to(x), x.mean(0), variance)


def posterior(
    p: Parameters,
    x: Tensor,  # (N, D)
) -> tuple[Tensor, Tensor]:  # (N, K), (K, K)
    """Means of the factors given the data, and their covariance, the same for all data.

    Example:
        >>> p = Parameters(torch.ones(1, 1), torch.zeros(1), torch.ones(()))
        >>> posterior(p, torch.tensor([[2.0]]))
        (tensor([[1.]]), tensor([[0.5000]]))
    """
    scaled = p.loadings / p.variance.expand(p.mean.shape)[:, None]  # (D, K)
    precision = torch.eye(p.loadings.shape[1]).to(x) + p.loadings.T @ scaled
    covariance = torch.linalg.inv(precision)
    return (x - p.mean) @ scaled @ covariance, covariance


def log_likelihood(
    p: Parameters,
    x: Tensor,  # (N, D)
) -> Tensor:  # (N,)
    """``log Normal(x_i; m, W W^T + diag(v))``, by determinants and inverses of size K only.

    Example:
        >>> p = Parameters(torch.ones(1, 1), torch.zeros(1), torch.ones(()))
        >>> log_likelihood(p, torch.zeros(1, 1))  # a normal of variance 2 at its centre
        tensor([-1.2655])
    """
    mean, covariance = posterior(p, x)
    variance = p.variance.expand(p.mean.shape)
    centred = x - p.mean
    log_det = variance.log().sum() - torch.logdet(covariance)
    # (x - m)^T C^-1 (x - m) is the residual at the posterior mean and that mean's own length.
    residual = ((centred - mean @ p.loadings.T) ** 2 / variance).sum(-1)
    return -0.5 * (x.shape[-1] * math.log(2 * math.pi) + log_det + residual + (mean**2).sum(-1))


def em_step(
    p: Parameters,
    x: Tensor,  # (N, D)
) -> Parameters:
    """One step of EM over loadings, mean and variance, common or not, as it is in ``p``.

    The regression of x on the factors and a constant, in expectation under the posterior; the
    variance is what it leaves on average. If m is the mean of the data it stays so.

    Example:
        >>> x = data()
        >>> before = random_start(x)
        >>> bool(log_likelihood(em_step(before, x), x).sum() > log_likelihood(before, x).sum())
        True
    """
    mean, covariance = posterior(p, x)
    number, latents = mean.shape
    regressors = torch.cat([mean, mean.new_ones(number, 1)], -1)  # (N, K + 1)
    moments = regressors.T @ regressors
    moments[:latents, :latents] += number * covariance
    centred = x - p.mean
    coefficients = torch.linalg.solve(moments, regressors.T @ centred).T  # (D, K + 1)
    loadings = coefficients[:, :latents]
    residual = ((centred - regressors @ coefficients.T) ** 2).mean(0)
    variance = residual + ((loadings @ covariance) * loadings).sum(-1)
    if p.variance.dim() == 0:
        variance = variance.mean()
    return Parameters(loadings, p.mean + coefficients[:, latents], variance)


def principal_components(
    x: Tensor,  # (N, D)
    latents: int = 2,
) -> Parameters:
    """The most likely parameters with a common variance, in closed form.

    Raises:
        ValueError: If there are not more features than factors: no variance would be left.

    Example:
        >>> p = principal_components(data())
        >>> p.loadings.shape, round(float(log_likelihood(p, data()).sum()), 2)
        (torch.Size([13, 2]), -2875.64)
    """
    size = x.shape[-1]
    if not 1 <= latents < size:
        raise ValueError(f"latents must be from 1 to {size - 1}, got {latents}")
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / x.shape[0])
    variance = values[:-latents].mean()
    loadings = vectors[:, -latents:] * (values[-latents:] - variance).sqrt()
    return Parameters(loadings.flip(1), mean, variance)


def maximum(
    x: Tensor,  # (N, D)
    latents: int = 2,
    tolerance: float = 1e-13,
    max_steps: int = 5000,
) -> Parameters:
    """The most likely factor analysis, by EM in double precision from the principal components.

    Args:
        x: The data.
        latents: Number K of factors.
        tolerance: What the mean log likelihood of a datum gains in the last step.
        max_steps: The most steps.

    Raises:
        RuntimeError: If the last of ``max_steps`` steps gains more, as when a variance goes to 0.

    Example:
        >>> p = maximum(data(), tolerance=1e-6)
        >>> round(float(log_likelihood(p, data().double()).sum()), 2)
        -2747.19
    """
    x = x.double()
    p = principal_components(x, latents)
    p = Parameters(p.loadings, p.mean, p.variance.expand(p.mean.shape))
    before = log_likelihood(p, x).mean()
    for _ in range(max_steps):
        p = em_step(p, x)
        now = log_likelihood(p, x).mean()
        if bool(now - before <= tolerance):
            return p
        before = now
    raise RuntimeError(
        f"EM still gains after {max_steps} steps; the smallest variance is "
        f"{float(p.variance.min()):.2g}. Take fewer latents or a larger tolerance."
    )
