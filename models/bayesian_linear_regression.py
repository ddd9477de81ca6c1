"""Bayesian linear regression with unknown noise, where everything has a closed form, or nearly.

    model():                 tau ~ Gamma(2, 1),  w | tau ~ Normal(0, 1 / (k tau)) in every entry,
    semi_conjugate_model():  tau ~ Gamma(2, 1),  w ~ Normal(0, 1 / k) in every entry,
    both:                    y_i ~ Normal(x_i . w, 1 / tau),   i = 1..N,   k = 1/2

(second arguments of the normals are variances). In the first the prior is the Normal-Gamma, and so
is the posterior: with ``L = k I + X^T X``, ``m = L^-1 X^T y``

    tau | y ~ Gamma(2 + N/2, 1 + (y^T y - m^T L m) / 2),   w | tau, y ~ Normal(m, (tau L)^-1).

In the second w and tau are independent a priori, each is conjugate given the other, and the
posterior is an integral over tau alone. Both are a first test of coordinate ascent: the updates are
in ``bayesian_linear_regression_updates``.

The data are the 442 patients of the diabetes study, ten measurements each, in units of the
standard deviation around the mean, as is the progression of the disease that they shall predict.

Sources: Bishop (2006), "Pattern recognition and machine learning", sections 3.3 and 10.3; the data
are those of Efron, Hastie, Johnstone and Tibshirani (2004), "Least angle regression", as shipped
by scikit-learn (``load_diabetes``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "CONCENTRATION",
    "RATE",
    "SHRINKAGE",
    "NormalGamma",
    "data",
    "exact_guide",
    "model",
    "posterior",
    "problem",
    "semi_conjugate_model",
    "semi_conjugate_posterior",
    "semi_conjugate_problem",
]

CONCENTRATION, RATE = 2.0, 1.0  # of the prior of tau
SHRINKAGE = 0.5  # k: the precision of a coefficient, in units of tau where there are any

SOURCE = "diabetes data of Efron, Hastie, Johnstone and Tibshirani (2004), as in scikit-learn"


def data(columns: int = 10) -> tuple[Tensor, Tensor]:
    """Standardised measurements, (442, columns), and the standardised response, (442,).

    Raises:
        ValueError: If there are not as many columns.

    Example:
        >>> x, y = data(3)
        >>> x.shape, y.shape
        (torch.Size([442, 3]), torch.Size([442]))
    """
    from sklearn.datasets import load_diabetes

    measurements, response = load_diabetes(return_X_y=True)
    if not 1 <= columns <= measurements.shape[1]:
        raise ValueError(f"columns must be from 1 to {measurements.shape[1]}, got {columns}")
    x = (measurements - measurements.mean(0)) / measurements.std(0)
    y = (response - response.mean()) / response.std()
    dtype = torch.get_default_dtype()
    return torch.as_tensor(x[:, :columns], dtype=dtype), torch.as_tensor(y, dtype=dtype)


def model(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    subsample_size: int | None = None,
) -> None:
    """The conjugate model: sites ``tau``, ``w`` with event shape (D,), and ``y`` in ``data``."""
    tau = pyro.sample("tau", dist.Gamma(x.new_tensor(CONCENTRATION), RATE))
    scale = (SHRINKAGE * tau).rsqrt()[..., None].expand(*tau.shape, x.shape[-1])
    w = pyro.sample("w", dist.Normal(0.0, scale).to_event(1))
    _likelihood(w, tau, x, y, subsample_size)


def semi_conjugate_model(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    subsample_size: int | None = None,
) -> None:
    """The same with ``w`` independent of ``tau`` a priori."""
    tau = pyro.sample("tau", dist.Gamma(x.new_tensor(CONCENTRATION), RATE))
    scale = x.new_full((x.shape[-1],), SHRINKAGE**-0.5)
    w = pyro.sample("w", dist.Normal(0.0, scale).to_event(1))
    _likelihood(w, tau, x, y, subsample_size)


def _likelihood(
    w: Tensor,  # (D,), or (*left, 1, D)
    tau: Tensor,  # (), or (*left, 1)
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    subsample_size: int | None,
) -> None:
    with pyro.plate("data", x.shape[0], subsample_size, dim=-1) as index:
        # The data take the place of the dimension of size one that a global latent has for them.
        mean = (w * x[index]).sum(-1)
        pyro.sample("y", dist.Normal(mean, tau.rsqrt()), obs=y[index])


@dataclass(frozen=True)
class NormalGamma:
    """``tau ~ Gamma(concentration, rate)``, ``w | tau ~ Normal(mean, (tau precision)^-1)``.

    Attributes:
        mean: Shape (D,).
        precision: Shape (D, D).
        concentration: A number.
        rate: A number, of shape ().
        log_evidence: ``log p(y)``.
    """

    mean: Tensor
    precision: Tensor
    concentration: float
    rate: Tensor
    log_evidence: float


def posterior(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
) -> NormalGamma:
    """The posterior of ``model`` and its log evidence in closed form.

    With prior parameters a, b and posterior ones a', b', L:
    ``log p(y) = -N/2 log 2 pi + (D log k - log det L) / 2 + a log b - a' log b'
    + log Gamma(a') - log Gamma(a)``.

    Example:
        >>> found = posterior(torch.zeros(1, 1), torch.zeros(1))  # as if w did not exist
        >>> found.concentration, found.rate
        (2.5, tensor(1.))
    """
    number, size = x.shape
    precision = SHRINKAGE * torch.eye(size, dtype=x.dtype) + x.T @ x
    mean = torch.linalg.solve(precision, x.T @ y)
    concentration = CONCENTRATION + number / 2
    rate = RATE + 0.5 * (((y - x @ mean) ** 2).sum() + SHRINKAGE * (mean**2).sum())
    log_evidence = (
        -0.5 * number * math.log(2 * math.pi)
        + 0.5 * (size * math.log(SHRINKAGE) - float(torch.logdet(precision)))
        + CONCENTRATION * math.log(RATE)
        - concentration * math.log(float(rate))
        + math.lgamma(concentration)
        - math.lgamma(CONCENTRATION)
    )
    return NormalGamma(mean, precision, concentration, rate, log_evidence)


def exact_guide(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    subsample_size: int | None = None,
) -> None:
    """The posterior of ``model`` given all data, also where the model sees a minibatch."""
    found = posterior(x, y)
    tau = pyro.sample("tau", dist.Gamma(x.new_tensor(found.concentration), found.rate))
    precision = tau[..., None, None] * found.precision
    pyro.sample("w", dist.MultivariateNormal(found.mean, precision_matrix=precision))


def problem(columns: int = 10, subsample_size: int | None = None) -> Problem:
    """The conjugate model. ``w`` has a t distribution with ``2 a'`` degrees of freedom.

    Example:
        >>> case = problem(columns=2)
        >>> case.reference["w"].mean.shape, round(case.log_evidence, 2)
        (torch.Size([2]), -628.73)
    """
    x, y = data(columns)
    found = posterior(x.double(), y.double())
    variance = found.rate / (found.concentration - 1) * found.precision.inverse().diagonal()
    dtype = x.dtype
    return Problem(
        name="linear regression",
        model=model,
        args=(x, y),
        kwargs={"subsample_size": subsample_size},
        exact_guide=exact_guide,
        reference={
            "tau": Moments(
                (found.concentration / found.rate).to(dtype),
                (math.sqrt(found.concentration) / found.rate).to(dtype),
            ),
            "w": Moments(found.mean.to(dtype), variance.sqrt().to(dtype)),
        },
        log_evidence=found.log_evidence,
        how="closed form",
        source=SOURCE,
    )


def semi_conjugate_posterior(
    x: Tensor,  # (N, D)
    y: Tensor,  # (N,)
    step: float = 0.005,
) -> tuple[dict[str, Moments], float]:
    """Posterior moments and log evidence of ``semi_conjugate_model``, by quadrature over tau.

    Given tau everything is normal, and in the eigenvectors of ``X^T X`` the entries of w are
    independent. The trapezoid rule over log tau from -12 to 12 is exact to many digits as long as
    the step is a small part of the posterior's width, which is about ``sqrt(2 / N)``.

    Example:
        >>> moments, _ = semi_conjugate_posterior(*data(2))
        >>> moments["w"].mean.shape
        torch.Size([2])
    """
    x, y, dtype = x.double(), y.double(), x.dtype
    number, size = x.shape
    values, vectors = torch.linalg.eigh(x.T @ x)
    values = values.clamp(min=0.0)
    projected = vectors.T @ (x.T @ y)  # (D,)
    log_tau = torch.linspace(-12, 12, round(24 / step) + 1, dtype=x.dtype)
    tau = log_tau.exp()
    precision = SHRINKAGE + tau[:, None] * values  # (grid, D)
    log_p = (
        dist.Gamma(x.new_tensor(CONCENTRATION), RATE).log_prob(tau)
        + log_tau  # the Jacobian
        + 0.5 * number * (log_tau - math.log(2 * math.pi))
        + 0.5 * (size * math.log(SHRINKAGE) - precision.log().sum(-1))
        - 0.5 * tau * (y**2).sum()
        + 0.5 * tau**2 * (projected**2 / precision).sum(-1)
    )
    weight = log_p.softmax(0)
    log_evidence = float(log_p.logsumexp(0) + (log_tau[1] - log_tau[0]).log())
    mean_given = tau[:, None] * projected / precision @ vectors.T  # (grid, D)
    variance_given = (1 / precision) @ (vectors.T**2)
    mean = weight @ mean_given
    variance = weight @ (variance_given + (mean_given - mean) ** 2)
    tau_mean = weight @ tau
    tau_sd = (weight @ (tau - tau_mean) ** 2).sqrt()
    moments = {
        "tau": Moments(tau_mean.to(dtype), tau_sd.to(dtype)),
        "w": Moments(mean.to(dtype), variance.sqrt().to(dtype)),
    }
    return moments, log_evidence


def semi_conjugate_problem(columns: int = 10, subsample_size: int | None = None) -> Problem:
    """The model with ``w`` independent of ``tau`` a priori.

    Example:
        >>> round(semi_conjugate_problem(columns=2).log_evidence, 2)
        -628.76
    """
    x, y = data(columns)
    reference, log_evidence = semi_conjugate_posterior(x, y)
    return Problem(
        name="semi-conjugate linear regression",
        model=semi_conjugate_model,
        args=(x, y),
        kwargs={"subsample_size": subsample_size},
        reference=reference,
        log_evidence=log_evidence,
        how="quadrature",
        source=SOURCE,
    )
