"""Plates, minibatches, chains over time, enumeration."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import ReverseKL
from pyro_klmodes.inference import by_index
from tests.engine.constructs.case import Case, Constructs
from tests.engine.runs import encoder, local

constructs = Constructs()


def points(n=6):
    return torch.linspace(-1.0, 1.5, n)


@constructs.compiled
def subsampling_in_the_model():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=3) as index:
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def subsampling_in_model_and_guide():
    def model(y):
        with pyro.plate("data", len(y), subsample_size=3) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    def guide(y):
        slope = pyro.param("slope", torch.tensor(0.1))
        scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(y), subsample_size=3) as index:
            pyro.sample("z", dist.Normal(slope * y[index], scale))

    return Case(model, guide, (points(),))


def by_index_model(y, subsample=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample=subsample) as index:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])


@constructs.compiled
def batches_by_index():
    sampler = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]
    options = {"batches": by_index(sampler)}
    return Case(by_index_model, AutoNormal(by_index_model), (points(),), options=options)


@constructs.compiled
def data_loader_with_a_last_short_batch():
    loader = DataLoader(TensorDataset(points(7)), batch_size=3, shuffle=True)
    return Case(local, encoder, steps=None, options={"batches": loader, "epochs": 4})


@constructs.compiled
def hidden_markov_model_by_enumeration():
    @config_enumerate
    def model(y):
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        x = 0
        for t in pyro.markov(range(len(y))):
            row = rows[..., x, :] if t else torch.tensor([0.5, 0.5])
            x = pyro.sample(f"x_{t}", dist.Categorical(row))
            pyro.sample(f"y_{t}", dist.Normal(loc[..., x], 1.0), obs=y[t])

    guide = AutoNormal(poutine.block(model, expose=["rows", "loc"]))
    return Case(model, guide, (points(4),))


@constructs.compiled
def state_space_loop():
    def model(y):
        drift = pyro.sample("drift", dist.Normal(0.0, 1.0))
        x = 0.0
        for t in range(len(y)):
            x = pyro.sample(f"x_{t}", dist.Normal(0.9 * x + drift, 0.5))
            pyro.sample(f"y_{t}", dist.Normal(x, 1.0), obs=y[t])

    return Case(model, AutoNormal(model), (points(4),))


@constructs.compiled
def nested_plates():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("columns", y.shape[1], dim=-1):
            a = pyro.sample("a", dist.Normal(mu, 1.0))
            with pyro.plate("rows", y.shape[0], dim=-2):
                b = pyro.sample("b", dist.Normal(a, 1.0))
                pyro.sample("y", dist.Normal(b, 0.5), obs=y)

    return Case(model, AutoNormal(model), (points().reshape(3, 2),))


@constructs.compiled
def enumerated_mixture_indexed_by_its_component():
    @config_enumerate
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("y", dist.Normal(mu[z], 0.5), obs=y)

    return Case(model, AutoNormal(poutine.block(model, hide=["z"])), (points(),))


@constructs.compiled
def group_effects_by_index():
    county = torch.tensor([0, 0, 1, 2, 2, 2])

    def model(y):
        with pyro.plate("counties", 3):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(a[county], 1.0), obs=y)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def regression_by_matrix_product():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    x = points(10).reshape(5, 2)
    return Case(model, AutoNormal(model), (x, (x.sum(1) > 0).double()))


@constructs.compiled
def stack_of_handlers():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        sd = pyro.sample("sd", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(mu + z, sd), obs=y)

    inner = poutine.scale(poutine.condition(model, data={"sd": torch.tensor(0.8)}), scale=0.5)
    stacked = config_enumerate(poutine.mask(inner, mask=torch.tensor(True)))
    return Case(stacked, AutoNormal(poutine.block(stacked, hide=["z"])), (points(),))


@constructs.compiled
def maximum_a_posteriori():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return Case(model, AutoDelta(model), (points(),), loss=lambda: ReverseKL(1))
