"""Fits that are run with eager code and with the graph, and compared."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import optim
from torch.distributions import constraints

from pyro_klmodes import fit

Y = torch.linspace(-1.0, 1.5, 5, dtype=torch.float64)


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    sd = pyro.sample("sd", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, sd), obs=y)


def guide(y):
    for name, family in (("mu", dist.Normal), ("sd", dist.LogNormal)):
        loc = pyro.param(f"{name}.loc", torch.tensor(0.1))
        scale = pyro.param(f"{name}.scale", torch.tensor(0.4), constraint=constraints.positive)
        pyro.sample(name, family(loc, scale))


def local(y):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def encoder(y):
    slope = pyro.param("slope", torch.tensor(0.1))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, 0.7))


def guide_of_mu(y):
    pyro.sample("mu", dist.Normal(pyro.param("mu.loc", torch.tensor(0.1)), 0.5))


def both(*args, run=fit, **options):
    """Fits with eager code and with the graph."""
    options = {"steps": 30, "progress": False, **options}
    found = []
    for engine in ("eager", "graph"):
        now = {
            name: x() if name in ("make_optim", "make_callbacks") else x
            for name, x in options.items()
        }
        now = {name.removeprefix("make_"): x for name, x in now.items()}
        found.append(run(*args, **now, engine=engine))
    return found


def assert_close(eager, graph, steps=None):
    torch.testing.assert_close(graph.losses, eager.losses, rtol=1e-10, atol=1e-12, equal_nan=True)
    for name, value in eager.params.items():
        torch.testing.assert_close(graph.params[name], value, rtol=1e-10, atol=1e-12)
    used = graph.explanation.used
    assert used.get("graph", 0) >= (graph.steps - 2 if steps is None else steps), used


OPTIMIZERS = {
    "adam": lambda: optim.Adam({"lr": 0.05}),
    "adam_with_decay": lambda: optim.Adam({"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.1}),
    "amsgrad": lambda: optim.Adam({"lr": 0.05, "amsgrad": True}),
    "adamw": lambda: optim.AdamW({"lr": 0.05}),
    "clipped_adam": lambda: optim.ClippedAdam({"lr": 0.05, "clip_norm": 2.0, "lrd": 0.97}),
    "centered": lambda: optim.ClippedAdam({"lr": 0.05, "centered_variance": True}),
    "sgd": lambda: optim.SGD({"lr": 0.001, "momentum": 0.9}),
    "adagrad_rmsprop": lambda: optim.AdagradRMSProp({"eta": 0.1}),
    "adam_clipped_by_pyro": lambda: optim.Adam({"lr": 0.05}, {"clip_norm": 1.0}),
    "rates_by_name": lambda: optim.Adam(lambda name: {"lr": 0.1 if "loc" in name else 0.01}),
    "by_prefix": lambda: {"mu": optim.Adam({"lr": 0.1}), "sd": optim.SGD({"lr": 0.001})},
    "exponential": lambda: optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.9}
    ),
    "by_function": lambda: optim.LambdaLR(
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": 0.05},
            "lr_lambda": lambda step: 1.0 / (1.0 + step),
        }
    ),
    "plateau": lambda: optim.ReduceLROnPlateau(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.2}, "patience": 1}
    ),
}


def some(names, quick):
    """All of them; the others are marked as slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]
