"""Many dimensions: standard normals that correlate by one half.

Mean field by reverse KL has a closed form, and by forward KL an optimum that is exact in every
margin. What ``ForwardKL`` makes of it with a hundred draws is another matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from pyro.infer.autoguide import AutoNormal, init_to_value

from choices.fitting import fitted
from models import correlated_gaussian
from pyro_klmodes import FitResult, ForwardKL, ReverseKL, estimators
from pyro_klmodes.guides import AutoFullRank, AutoLowRank

__all__ = ["LOSSES", "Spread", "exact", "forward_mean_field", "full_rank", "low_rank",
           "reverse_closed"]  # fmt: skip

CORRELATION = 0.5
DRAWS = 4000
LOSSES = {"reverse KL": ReverseKL(16, estimator=estimators.doubly), "forward KL": ForwardKL(100)}
#: standard deviations of one coordinate (mean over them) and of their average
Spread = tuple[float, float]


def target(dimension: int) -> Callable[[], None]:
    return partial(correlated_gaussian.model, dimension, CORRELATION)


def exact(dimension: int) -> Spread:
    return 1.0, math.sqrt(CORRELATION + (1 - CORRELATION) / dimension)


def reverse_closed(dimension: int) -> Spread:
    sd = correlated_gaussian.mean_field_sd(dimension, CORRELATION)
    return sd, sd / math.sqrt(dimension)


def forward_mean_field(dimension: int, steps: int) -> Spread:
    """``ForwardKL`` with 100 draws, *started at* its exact optimum."""
    model, at = target(dimension), init_to_value(values={"z": torch.zeros(dimension)})
    guide = AutoNormal(model, init_loc_fn=at, init_scale=1.0)
    scales = fitted(model, guide, ForwardKL(100), steps=steps).params["AutoNormal.scales.z"]
    return float(scales.mean()), float((scales**2).sum().sqrt()) / dimension


def low_rank(dimension: int, loss: str, steps: int) -> tuple[Spread, float]:
    """A guide with one direction of dependence, which holds the target, from the same start.

    Returns also the effective share of its draws.
    """
    model, at = target(dimension), init_to_value(values={"z": torch.zeros(dimension)})
    guide = AutoLowRank(model, rank=1, init_loc_fn=at)
    return _measured(fitted(model, guide, LOSSES[loss], steps=steps))


def full_rank(dimension: int, loss: str, steps: int) -> tuple[Spread, float]:
    """The same with a full covariance."""
    model, at = target(dimension), init_to_value(values={"z": torch.zeros(dimension)})
    guide = AutoFullRank(model, init_loc_fn=at)
    return _measured(fitted(model, guide, LOSSES[loss], steps=steps))


def _measured(result: FitResult) -> tuple[Spread, float]:
    z = result.sample(DRAWS)["z"]
    weights = result.log_weights(DRAWS).softmax(0)
    spread = float(z.std(0).mean()), float(z.mean(-1).std())
    return spread, float(1 / (weights**2).sum()) / DRAWS
