"""Two modes, 0.7 N(-3, 1) + 0.3 N(3, 1): single normals, and mixtures from two kinds of start."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch import Tensor

from choices.fitting import fitted
from models.bimodal import mixture_model as model
from models.bimodal import two_sided
from pyro_klmodes import FitResult, ForwardKL, ReverseKL
from pyro_klmodes.guides import At, AutoMixture, FromModes

__all__ = ["EXACT_RIGHT", "EXACT_VALLEY", "exact", "fits", "masses"]

#: P(z > 0) and P(|z| < 1)
EXACT_RIGHT = float(0.7 * dist.Normal(0, 1).cdf(torch.tensor(-3.0)) +
                    0.3 * dist.Normal(0, 1).cdf(torch.tensor(3.0)))  # fmt: skip
EXACT_VALLEY = float(dist.Normal(0, 1).cdf(torch.tensor(4.0)) -
                     dist.Normal(0, 1).cdf(torch.tensor(2.0)))  # fmt: skip


def exact() -> dist.MixtureSameFamily:
    return two_sided(torch.tensor(-3.0), 1.0)


def fits(steps: int) -> dict[str, FitResult]:
    def at(value: float):
        return init_to_value(values={"z": torch.tensor(value)})

    def mixture(start):
        return AutoMixture(model, num_components=2, start=start, init_loc_fn=at(0.0))

    left = At(torch.tensor([[-3.5], [-2.5]]))
    pairs = {
        "normal, reverse KL": (AutoNormal(model, init_loc_fn=at(-2.0), init_scale=1.5),
                               ReverseKL(64)),
        "normal, forward KL": (AutoNormal(model, init_loc_fn=at(0.0), init_scale=4.0),
                               ForwardKL(500)),
        "mixture from the modes": (mixture(FromModes(radius=5.0)), ReverseKL(64)),
        "mixture from one mode": (mixture(left), ForwardKL(64)),
    }  # fmt: skip
    return {name: fitted(model, *pair, steps=steps) for name, pair in pairs.items()}


def masses(z: Tensor) -> tuple[float, float]:
    """P(z > 0) and P(|z| < 1) of draws."""
    return float((z > 0).float().mean()), float((z.abs() < 1).float().mean())
