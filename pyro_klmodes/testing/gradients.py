"""Laws of gradient estimators: the right mean, and none at the posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from scipy import stats
from torch import Tensor

from pyro_klmodes.losses import DivergenceLoss

__all__ = ["assert_same_mean", "assert_vanishes_at_posterior", "gradient_samples"]


def gradient_samples(
    loss: DivergenceLoss,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    repetitions: int,
    seed: int = 0,
) -> Tensor:  # (repetitions, number of parameters)
    """Independent gradient estimates with respect to all parameters in the param store.

    Parameters that got no gradient count as zero. The guide must have been run before, so that its
    parameters exist.
    """
    pyro.set_rng_seed(seed)
    store = pyro.get_param_store()
    rows = []
    for _ in range(repetitions):
        for _, p in store.named_parameters():
            p.grad = None
        loss.loss_and_grads(model, guide, *args, **(kwargs or {}))
        parts = [
            torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1).clone()
            for _, p in sorted(store.named_parameters())
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def assert_same_mean(
    samples: Tensor,  # (n, P)
    expected: Tensor,  # (P,) exact, or (m, P) samples of the other estimator
    *,
    p_value: float = 1e-4,
) -> None:
    """Chi-square test (Hotelling's) that two gradient estimators have one mean.

    Directions in which neither varies must agree to rounding instead.
    """
    n = samples.shape[0]
    difference = samples.mean(0)
    covariance = torch.cov(samples.T).reshape(samples.shape[1], -1) / n
    degrees = n - 1
    if expected.dim() == 2:
        difference = difference - expected.mean(0)
        other = torch.cov(expected.T).reshape(samples.shape[1], -1) / expected.shape[0]
        covariance = covariance + other
        degrees = min(degrees, expected.shape[0] - 1)
    else:
        difference = difference - expected
    values, vectors = torch.linalg.eigh(covariance)
    coordinates = vectors.T @ difference
    varies = values > 1e-12 * values.max().clamp(min=1e-300)
    rigid = coordinates[~varies].abs()
    scale = difference.abs().max() + samples.abs().max()
    assert bool((rigid <= 1e-6 * scale + 1e-12).all()), f"constant parts differ by {rigid}"
    rank = int(varies.sum())
    statistic = float((coordinates[varies] ** 2 / values[varies]).sum())
    # Hotelling's T^2 with estimated covariance follows an F distribution
    f = statistic * (degrees - rank + 1) / (degrees * rank) if rank else 0.0
    p = float(stats.f.sf(f, rank, degrees - rank + 1)) if rank else 1.0
    assert p > p_value, (
        f"means differ: chi2 = {statistic:.1f} on {rank} degrees of freedom, p = {p:.2g}; "
        f"difference {difference.tolist()}, standard errors {covariance.diagonal().sqrt().tolist()}"
    )


def assert_vanishes_at_posterior(
    loss: DivergenceLoss,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float = 1e-6,
) -> None:
    """A path-only gradient is zero, draw by draw, when the guide is the posterior."""
    gradient = gradient_samples(loss, model, guide, args, kwargs, repetitions=3)
    worst = float(gradient.abs().max())
    assert worst <= tolerance, f"{loss!r}: gradient {worst:.3g} at the posterior"
