"""Every model in Pyro: as one writes it down, and so that Pyro can vectorise its particles.

Pyro's particles are a batch dimension of every latent. Where a latent is indexed or multiplied,
the model has to be written with that in mind, and an enumerated index needs ``Vindex``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.ops.indexing import Vindex
from torch import Tensor

from benchmarks.engine.cell import AMORTISED, MEAN_FIELD, Cell
from benchmarks.engine.problems.autoencoder import Autoencoder
from benchmarks.engine.problems.data import ARRAYS, COUNTIES

__all__ = ["BROADCASTING", "MARGINAL", "MODELS", "arguments", "pair"]

Model = Callable[..., Any]

MEANS = ((-3.0, 0.0), (3.0, 1.0), (0.0, -3.0))
SHARES = (0.5, 0.3, 0.2)
WIDTH = 0.5


def eight_schools(sigma: Tensor, y: Tensor) -> None:
    """Non-centred."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def mixture_potential() -> None:
    """A mixture of three normals in the plane, as a factor."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(False))
    squares = ((z[..., None, :] - torch.tensor(MEANS)) ** 2).sum(-1)
    logits = torch.tensor(SHARES).log() - 0.5 * squares / WIDTH**2
    pyro.factor("potential", torch.logsumexp(logits, -1))


def logistic(x: Tensor, y: Tensor) -> None:
    """Logistic regression."""
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)


def logistic_broadcasting(x: Tensor, y: Tensor) -> None:
    """The same, for weights of shape (features,) or (particles, 1, features)."""
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    products = w @ x.T
    if products.dim() > 1:
        products = products.squeeze(-2)
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Bernoulli(logits=products + b), obs=y)


def radon(county: Tensor, floor: Tensor, y: Tensor) -> None:
    """An intercept for every county."""
    _radon(county, floor, y, lambda a: a[county])


def radon_broadcasting(county: Tensor, floor: Tensor, y: Tensor) -> None:
    """The same, for intercepts of shape (counties,) or (particles, counties)."""
    _radon(county, floor, y, lambda a: a[..., county])


def _radon(county: Tensor, floor: Tensor, y: Tensor, intercept: Callable[[Tensor], Tensor]) -> None:
    mu_a = pyro.sample("mu_a", dist.Normal(0.0, 10.0))
    sigma_a = pyro.sample("sigma_a", dist.HalfNormal(1.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma_y = pyro.sample("sigma_y", dist.HalfNormal(1.0))
    with pyro.plate("counties", COUNTIES):
        a = pyro.sample("a", dist.Normal(mu_a, sigma_a))
    with pyro.plate("houses", county.shape[0]):
        pyro.sample("y", dist.Normal(intercept(a) + beta * floor, sigma_y), obs=y)


def _clusters() -> tuple[Tensor, Tensor, Tensor]:
    """Weights, and for each of three clusters its mean and width."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("clusters", 3):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    return weights, mu, sigma


def enumerated(x: Tensor) -> None:
    """A mixture whose assignments are summed out."""
    weights, mu, sigma = _clusters()
    with pyro.plate("data", x.shape[0]):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu[z], sigma[z]), obs=x)


def enumerated_broadcasting(x: Tensor) -> None:
    """The same, for means of shape (clusters,) or (particles, clusters)."""
    weights, mu, sigma = _clusters()
    mu, sigma = Vindex(mu.unsqueeze(-2)), Vindex(sigma.unsqueeze(-2))
    with pyro.plate("data", x.shape[0]):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu[..., z], sigma[..., z]), obs=x)


def marginal(x: Tensor) -> None:
    """The same with the sum written out, for the losses of Pyro's that do not enumerate."""
    weights, mu, sigma = _clusters()
    with pyro.plate("data", x.shape[0]):
        normals = dist.Normal(mu.unsqueeze(-2), sigma.unsqueeze(-2))
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), normals), obs=x)


def hmm(y: Tensor) -> None:
    """A hidden Markov chain over three states, summed out."""
    transition, loc = _states()
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z{t}", dist.Categorical(transition[z]), infer={"enumerate": "parallel"})
        pyro.sample(f"y{t}", dist.Normal(loc[z], 1.0), obs=y[t])


def hmm_broadcasting(y: Tensor) -> None:
    """The same, with any batch of transitions and means."""
    transition, loc = _states()
    z = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        probs = Vindex(transition)[..., z, :]
        z = pyro.sample(f"z{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
        pyro.sample(f"y{t}", dist.Normal(Vindex(loc)[..., z], 1.0), obs=y[t])


def _states() -> tuple[Tensor, Tensor]:
    """Transitions (3, 3) and means (3,)."""
    transition = pyro.sample("transition", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
    return transition, pyro.sample("loc", dist.Normal(torch.zeros(3), 3.0).to_event(1))


def state_space(y: Tensor) -> None:
    """A random walk seen with noise, one site per step."""
    s = pyro.sample("s", dist.HalfNormal(1.0))
    x = pyro.sample("x0", dist.Normal(0.0, 1.0))
    for t in range(len(y)):
        x = pyro.sample(f"x{t + 1}", dist.Normal(x, s))
        pyro.sample(f"y{t}", dist.Normal(x, 1.0), obs=y[t])


MODELS: dict[str, Model] = {
    "eight schools": eight_schools,
    "mixture potential": mixture_potential,
    "logistic regression": logistic,
    "radon": radon,
    "enumerated mixture": enumerated,
    "hidden Markov, T = 20": hmm,
    "state space, T = 100": state_space,
}

BROADCASTING: dict[str, Model] = MODELS | {
    "logistic regression": logistic_broadcasting,
    "radon": radon_broadcasting,
    "enumerated mixture": enumerated_broadcasting,
    "hidden Markov, T = 20": hmm_broadcasting,
}

MARGINAL: dict[str, Model] = BROADCASTING | {"enumerated mixture": marginal}


def arguments(model: str) -> tuple[Tensor, ...]:
    """The data of a model: numbers in the default type, indices as they are."""
    tensors = map(torch.from_numpy, ARRAYS[model]())
    return tuple(t.to(torch.get_default_dtype()) if t.is_floating_point() else t for t in tensors)


def pair(cell: Cell, models: dict[str, Model]) -> tuple[Model, Model]:
    """Model and guide; Pyro's own guides in the grid, so that all contestants fit the same."""
    if cell.guide == AMORTISED:
        networks = Autoencoder()
        return networks.model, networks.guide
    model = models[cell.model]
    make = AutoNormal if cell.guide == MEAN_FIELD else AutoMultivariateNormal
    seen = poutine.block(model, hide_fn=_is_enumerated)
    return model, make(seen)


def _is_enumerated(site: dict[str, Any]) -> bool:
    return "enumerate" in site["infer"]
