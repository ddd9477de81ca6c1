"""Few and many data: a Poisson rate, whose posterior is a Gamma distribution.

The logarithm of a Gamma(a, b) variable has standard deviation sqrt(trigamma(a)); the normal that
is closest to it by reverse KL has 1 / sqrt(a). With a = 1 the posterior is a Gumbel distribution.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy.special import digamma, polygamma
from torch import Tensor

from choices.fitting import fitted
from pyro_klmodes import ForwardKL, ReverseKL, check, errors

__all__ = ["data", "exact", "exact_sd", "on_minibatches", "refusal", "reverse_fit", "reverse_sd"]

PRIOR_SHAPE, PRIOR_RATE = 1.0, 0.1


def model(y: Tensor, size: int | None = None) -> None:
    rate = pyro.sample("rate", dist.Gamma(PRIOR_SHAPE, PRIOR_RATE))
    with pyro.plate("days", len(y), subsample_size=size) as days:
        pyro.sample("y", dist.Poisson(rate), obs=y[days])


def exact_sd(shape: float) -> float:
    """Of the logarithm of the rate."""
    return math.sqrt(polygamma(1, shape))


def reverse_sd(shape: float) -> float:
    return 1 / math.sqrt(shape)


def data(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.poisson(torch.full((number,), 2.0), generator=generator)


def exact(y: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm of the rate."""
    shape, rate = PRIOR_SHAPE + float(y.sum()), PRIOR_RATE + len(y)
    return float(digamma(shape)) - math.log(rate), exact_sd(shape)


def reverse_fit(y: Tensor, steps: int) -> float:
    """The standard deviation of a fit to all data."""
    guide = AutoNormal(model, init_scale=1.0)
    params = fitted(model, guide, ReverseKL(64), y, steps=steps).params
    return float(params["AutoNormal.scales.rate"])


def on_minibatches(y: Tensor, size: int, steps: int) -> tuple[float, float]:
    """Mean and standard deviation by reverse KL, from minibatches."""
    near = init_to_value(values={"rate": y[:size].mean()})
    guide = AutoNormal(model, init_loc_fn=near, init_scale=0.02)
    params = fitted(model, guide, ReverseKL(16), y, size=size, steps=steps, pace=0.5).params
    return tuple(float(params[f"AutoNormal.{part}.rate"]) for part in ("locs", "scales"))


def refusal(y: Tensor, size: int) -> str:
    """What ``ForwardKL`` has to say to the same minibatches."""
    try:
        check(model, AutoNormal(model), y, size=size, loss=ForwardKL())
    except errors.KLModesError as error:
        return str(error)
    return ""
