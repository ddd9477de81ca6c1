"""What the posterior is for: one target, three divergences, five uses.

The target is a pair of standard normals with correlation r = 0.9, the guide two independent
normals. Everything that is asked of a fit is a closed form in its two means and scales.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from scipy.stats import norm

from choices.fitting import fitted
from models import correlated_gaussian
from pyro_klmodes import CUBO, FitResult, ForwardKL, ReverseKL, estimators
from pyro_klmodes.guides import AutoFullRank

__all__ = ["CORRELATION", "EXACT", "USES", "answers", "correlated", "fits", "weighted"]

CORRELATION = 0.9
pair = partial(correlated_gaussian.model, 2, CORRELATION)
USES = {
    "coverage": "coverage of a 90% interval",
    "difference": "sd of the difference",
    "sum": "sd of the sum",
    "bound": "nats short of the evidence",
    "share": "effective share of weighted draws",
}
EXACT = {
    "coverage": 0.9,
    "difference": math.sqrt(2 - 2 * CORRELATION),
    "sum": math.sqrt(2 + 2 * CORRELATION),
    "bound": 0.0,
    "share": 1.0,
}


def fits(steps: int) -> dict[str, FitResult]:
    """A fit for each of three divergences, from a wide start away from the mean."""
    losses = {
        "reverse KL": ReverseKL(100),
        "forward KL": ForwardKL(500),
        "chi-square": CUBO(2, 500),
    }
    found = {}
    for name, loss in losses.items():
        guide = AutoNormal(pair, init_loc_fn=init_to_value(values={"z": torch.ones(2)}),
                           init_scale=1.5)  # fmt: skip
        found[name] = fitted(pair, guide, loss, steps=steps)
    return found


def correlated(steps: int) -> tuple[float, float]:
    """Standard deviations of difference and sum under a guide that can correlate."""
    guide = AutoFullRank(pair, init_loc_fn=init_to_value(values={"z": torch.ones(2)}))
    loss = ReverseKL(100, estimator=estimators.doubly)
    z = fitted(pair, guide, loss, steps=steps).sample(20_000)["z"]
    return float((z[:, 0] - z[:, 1]).std()), float(z.sum(1).std())


def weighted(result: FitResult) -> tuple[float, float, float]:
    """The same under a mean-field guide whose draws are weighted, and the log evidence by them."""
    drawn = result.draws(20_000)
    z, weights = drawn.values["z"], drawn.log_w.softmax(0)
    of_both = [z[:, 0] - z[:, 1], z.sum(1)]
    means = [(weights * x).sum() for x in of_both]
    difference, total = (
        float((weights * (x - mean) ** 2).sum().sqrt())
        for x, mean in zip(of_both, means, strict=True)
    )
    return difference, total, float(drawn.log_w.logsumexp(0)) - math.log(len(z))


def answers(result: FitResult) -> dict[str, float]:
    """What the guide of a fit says, and is worth, for every use.

    With means zero; those of the fits are the first entry, the larger of the two.
    """
    loc = result.params["AutoNormal.locs.z"].double()
    scale = result.params["AutoNormal.scales.z"].double()
    s = float(scale.log().mean().exp())
    r = CORRELATION
    reverse = s**2 / (1 - r**2) - 1 + 0.5 * math.log(1 - r**2) - 2 * math.log(s)
    second = 1.0  # E_q (p/q)^2, one factor for each eigenvector
    for variance in (1 + r, 1 - r):
        ratio = s**2 / variance
        second *= ratio / math.sqrt(2 * ratio - 1) if ratio > 0.5 else math.inf
    return {
        "mean": float(loc.abs().max()),
        "coverage": float(2 * norm.cdf(norm.ppf(0.95) * s) - 1),
        "difference": math.sqrt(2) * s,
        "sum": math.sqrt(2) * s,
        "bound": reverse,
        "share": 1 / second,
    }
