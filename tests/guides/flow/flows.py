"""Flows for the tests: every architecture, with weights that are far from the identity."""

import torch

from pyro_klmodes.guides.flow import (
    Affine,
    Autoregressive,
    Coupling,
    Direction,
    FlowFamily,
    GaussianBase,
    MixtureBase,
    Spline,
    StudentTailLayer,
    StudentTBase,
    TailLayer,
)
from pyro_klmodes.guides.joint.spread import Spread

SMALL = {"transforms": 2, "hidden_features": (8,)}

ANY_DIMENSION = {
    "spline, fast sampling": Autoregressive(Spline(bins=4), **SMALL),
    "spline, fast density": Autoregressive(
        Spline(bins=4), direction=Direction.FAST_DENSITY, **SMALL
    ),
    "affine, fast sampling": Autoregressive(Affine(), **SMALL),
    "affine, fast density": Autoregressive(Affine(), direction=Direction.FAST_DENSITY, **SMALL),
}
COUPLED = {
    "spline coupling": Coupling(Spline(bins=4), **SMALL),
    "affine coupling": Coupling(Affine(), **SMALL),
}
ARCHITECTURES = {**ANY_DIMENSION, **COUPLED}
BASES = {
    "gaussian": GaussianBase(),
    "student": StudentTBase(df=4.0),
    "mixture": MixtureBase(num_components=3, start=Spread(radius=1.5)),
}
TAILS = {
    "no tails": None,
    "pareto tails": TailLayer(weights=0.3, negative=0.1),
    "student tails": StudentTailLayer(weights=0.3, negative=0.1),
}


def flow(
    dim,
    *,
    architecture=ANY_DIMENSION["spline, fast sampling"],
    base=None,
    tails=None,
    loc=0.3,
    scale=1.0,
    dtype=torch.float64,
):
    return FlowFamily(
        torch.full((dim,), loc, dtype=dtype),
        scale,
        architecture=architecture,
        base=base or GaussianBase(),
        tails=tails,
    )


def shaken(family, size=0.5):
    """The family with all of its unconstrained parameters moved at random."""
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return family
