"""Logistic regression on the Wisconsin breast cancer data: 569 tumours, 30 measurements each.

    b ~ Normal(0, 1)^31,   y_i ~ Bernoulli(logit = b_0 + sum_k b_k x_ik)

with measurements in units of their standard deviation around their mean, and y = 1 for a benign
tumour. The measurements come in groups that are almost copies of each other (radius, perimeter and
area), so the posterior is correlated: the mean-field normal of reverse KL understates the standard
deviations by about 28 to 56 % (from the covariance of the posterior, as if it were normal).

The reference is an importance sample with stated errors, see ``logistic_regression_reference``.

Sources: Street, Wolberg and Mangasarian (1993), "Nuclear feature extraction for breast tumor
diagnosis"; the data are those that scikit-learn ships (``load_breast_cancer``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = ["STORED", "Reference", "data", "model", "problem", "stored_reference"]

STORED = Path(__file__).with_name("logistic_regression_reference.json")

SOURCE = "Street, Wolberg and Mangasarian (1993), as shipped by scikit-learn"


def data() -> tuple[Tensor, Tensor]:
    """The standardised measurements after a column of ones, (569, 31), and the labels, (569,).

    Example:
        >>> x, y = data()
        >>> x.shape, y.sum()
        (torch.Size([569, 31]), tensor(357.))
    """
    from sklearn.datasets import load_breast_cancer

    measurements, labels = load_breast_cancer(return_X_y=True)
    scaled = torch.as_tensor((measurements - measurements.mean(0)) / measurements.std(0))
    x = torch.cat([torch.ones(len(scaled), 1, dtype=scaled.dtype), scaled], -1)
    dtype = torch.get_default_dtype()
    return x.to(dtype), torch.as_tensor(labels, dtype=dtype)


def model(
    x: Tensor,  # (N, features)
    y: Tensor,  # (N,)
    subsample_size: int | None = None,
    subsample: Tensor | None = None,
) -> None:
    """Logistic regression with standard normal coefficients, a site of event shape (features,).

    Args:
        x: The measurements with a column of ones, of all data, also when there are minibatches.
        y: The labels, 0 or 1.
        subsample_size: Size of a random minibatch; None for all data.
        subsample: The indices of a minibatch of your own.
    """
    prior = dist.Normal(x.new_zeros(x.shape[-1]), 1.0).to_event(1)
    coefficients = pyro.sample("coefficients", prior)
    with pyro.plate("data", x.shape[0], subsample_size, subsample) as index:
        logits = coefficients @ x[index].T
        if logits.dim() > 1:  # (particles, 1, data): the data take the place of the one
            logits = logits.squeeze(-2)
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y[index])


@dataclass(frozen=True)
class Reference:
    """Posterior moments of the coefficients and the log evidence, with their standard errors.

    Attributes:
        mean: Shape (31,), as the three below.
        sd: Posterior standard deviations.
        mean_error: Standard errors of the means.
        sd_error: Standard errors of the standard deviations.
        log_evidence: ``log p(y)``.
        log_evidence_error: Its standard error.
        draws: Number of draws.
        effective: Effective number of draws, ``1 / sum w^2`` with normalised weights.
    """

    mean: Tensor
    sd: Tensor
    mean_error: Tensor
    sd_error: Tensor
    log_evidence: float
    log_evidence_error: float
    draws: int
    effective: float


def stored_reference() -> Reference:
    """The stored reference, in the default dtype at the time of the call.

    Example:
        >>> stored_reference().draws
        1000000
    """
    dtype = torch.get_default_dtype()
    content: dict[str, Any] = json.loads(STORED.read_text())
    fields: dict[str, Any] = {
        name: torch.tensor(value, dtype=dtype) if isinstance(value, list) else value
        for name, value in content.items()
    }
    return Reference(**fields)


def problem(subsample_size: int | None = None) -> Problem:
    """All data, or minibatches of them. Reference and evidence are those of all data.

    Example:
        >>> problem(subsample_size=50).reference["coefficients"].mean.shape
        torch.Size([31])
    """
    known = stored_reference()
    return Problem(
        name="logistic regression",
        model=model,
        args=data(),
        kwargs={"subsample_size": subsample_size},
        reference={"coefficients": Moments(known.mean, known.sd)},
        log_evidence=known.log_evidence,
        how=(
            f"importance sampling, {known.effective:.0f} effective draws; "
            f"standard error of the log evidence {known.log_evidence_error:.4f}"
        ),
        source=SOURCE,
    )
