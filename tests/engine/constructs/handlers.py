"""Masks, scales, conditioning, reparameterisation, factors, parameters of the model."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.transforms import ExpTransform
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import AutoReparam, LocScaleReparam, TransformReparam
from torch.distributions import constraints

from tests.engine.constructs.case import Case, Constructs

constructs = Constructs()
SEEN = torch.tensor([True, True, False, True, False])


def points():
    return torch.linspace(-1.0, 1.5, 5)


@constructs.compiled
def missing_data_by_poutine_mask():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)), poutine.mask(mask=SEEN):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def missing_data_by_mask_of_the_distribution():
    def model(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(seen), obs=y)

    return Case(model, AutoNormal(model), (points(), SEEN))


@constructs.compiled
def missing_data_by_obs_mask():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=SEEN)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def missing_data_by_boolean_index():
    def model(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[seen])

    return Case(model, AutoNormal(model), (points(), SEEN))


@constructs.compiled
def scaled_likelihood():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)), poutine.scale(scale=0.3):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def conditioned_model():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        sd = pyro.sample("sd", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, sd), obs=y)

    given = poutine.condition(model, data={"sd": torch.tensor(0.5)})
    return Case(given, AutoNormal(given), (points(),))


def schools(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


@constructs.compiled
def location_and_scale_taken_out():
    model = poutine.reparam(schools, config={"theta": LocScaleReparam(0.0)})
    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def location_and_scale_partly_taken_out():
    model = poutine.reparam(schools, config={"theta": LocScaleReparam(None)})
    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def automatic_reparameterisation():
    model = AutoReparam()(schools)
    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def transformed_site_taken_apart():
    def model(y):
        fn = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [ExpTransform()])
        sd = pyro.sample("sd", fn)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(0.0, sd), obs=y)

    apart = poutine.reparam(model, config={"sd": TransformReparam()})
    return Case(apart, AutoNormal(apart), (points(),))


@constructs.compiled
def factors_and_deterministic_sites():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        twice = pyro.deterministic("twice", 2.0 * mu)
        pyro.factor("close", -((twice - 1.0) ** 2))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def parameters_of_the_model_with_constraints():
    def model(y):
        sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
        share = pyro.param("share", torch.ones(2) / 2, constraint=constraints.simplex)
        mu = pyro.sample("mu", dist.Normal(share[0], 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, sd), obs=y)

    return Case(model, AutoNormal(model), (points(),))


@constructs.compiled
def parameters_shared_by_model_and_guide():
    def model(y):
        a = pyro.param("a", torch.tensor(0.3))
        mu = pyro.sample("mu", dist.Normal(a, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def guide(y):
        a = pyro.param("a", torch.tensor(0.3))
        sd = pyro.param("sd", torch.tensor(0.5), constraint=constraints.positive)
        pyro.sample("mu", dist.Normal(a, sd))

    return Case(model, guide, (points(),))
