"""The objective on paper is not yet what an algorithm finds: real fits, and where they lead."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value

from models import bimodal
from pyro_klmodes import AverageIterates, ForwardKL, ReverseKL, fit

STARTS = {"wide": (-0.8, 2.4), "narrow": (-2.6, 1.1)}


def forward_fit(
    particles: int, start: str, steps: int, draws: int, adam: dict[str, Any]
) -> tuple[float, float]:
    """Mean and sd of a normal fitted to 0.7 N(-3, 1) + 0.3 N(3, 1) by forward KL, K at a time.

    All fits see equally many draws in a step, in groups of K, so that only the bias of the
    self-normalised weights differs between them, not the noise.
    """
    mean, sd = STARTS[start]
    model = bimodal.mixture_model
    guide = AutoNormal(
        model, init_loc_fn=init_to_value(values={"z": torch.tensor(mean)}), init_scale=sd
    )
    result = fit(
        model,
        guide,
        ForwardKL(particles, num_outer=draws // particles),
        steps=steps,
        optim=pyro.optim.ClippedAdam({**adam, "lrd": 0.02 ** (1 / steps)}),
        progress=False,
    )
    return float(result.params["AutoNormal.locs.z"]), float(result.params["AutoNormal.scales.z"])


def sleep(draws: int = 20_000, seed: int = 0) -> tuple[float, float]:
    """Maximum likelihood of q(z | x) = N(a x, v) on draws of z ~ N(0, 1), x ~ N(z, 1): a and v.

    The posterior is N(x / 2, 1 / 2).
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(draws, generator=generator, dtype=torch.float64)
    x = z + torch.randn(draws, generator=generator, dtype=torch.float64)
    slope = (x * z).sum() / (x * x).sum()
    return float(slope), float(((z - slope * x) ** 2).mean())


def many_normals(dimension: int = 100):
    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(dimension), 1.0).to_event(1))

    return model


def last_and_average(steps: int, dimension: int = 100) -> tuple[float, float]:
    """KL(q‖p) of the last iterate and of the mean of the second half, at a constant step size.

    The guide contains the target, so both would be 0 if the optimiser stood still.
    """
    model = many_normals(dimension)
    averaging = AverageIterates(start=steps // 2, replace=False)
    result = fit(
        model,
        AutoNormal(model, init_scale=1.0),
        ReverseKL(1),
        steps=steps,
        optim=pyro.optim.Adam({"lr": 0.05}),
        progress=False,
        callbacks=[averaging],
    )

    def divergence(mean: torch.Tensor, sd: torch.Tensor) -> float:
        mean, sd = mean.double(), sd.double()
        return float(((mean**2 + sd**2 - 1) / 2 - sd.log()).sum())

    mean, sd = (f"AutoNormal.{name}.z" for name in ("locs", "scales"))
    average = averaging.average
    # averages are of what the optimiser moves, of which a scale is the softplus
    return (
        divergence(result.params[mean], result.params[sd]),
        divergence(average[mean], torch.nn.functional.softplus(average[sd])),
    )


def forward_sd(
    dimension: int, particles: int = 100, sets: int = 400, correlation: float = 0.5
) -> float:
    """Where forward KL with K particles takes the sd of a mean field; exactly it would be 1.

    The target is a normal with equal correlations and marginal variances 1. By symmetry all scales
    are equal, s say, and the fixed point solves ``E sum_k w_k |e_k|² = d`` with self-normalised
    weights of draws ``s e_k``. It is iterated on one set of noise.
    """
    generator = torch.Generator().manual_seed(dimension)
    noise = torch.randn(particles, sets, dimension, generator=generator, dtype=torch.float64)
    squares = (noise**2).sum(-1)
    along = noise.sum(-1) ** 2 / dimension  # squared length along (1, ..., 1)
    wide = 1 + (dimension - 1) * correlation
    s = 0.8
    for _ in range(300):
        quadratic = along / wide + (squares - along) / (1 - correlation)
        weight = torch.softmax(-(s**2) * quadratic / 2 + squares / 2, 0)
        factor = float((weight * squares).sum(0).mean()) / dimension
        if abs(factor - 1) < 1e-6:
            break
        s *= math.sqrt(factor)
    return s
