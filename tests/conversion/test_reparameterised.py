"""A site that a reparameterisation has replaced is part of the posterior, and no datum."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam, TransformReparam

from pyro_klmodes import ReverseKL, compare, fit
from pyro_klmodes.conversion import loo, to_arviz
from pyro_klmodes.inference_data import dataset

Y = torch.tensor([1.0, 2.0, -1.0])


def centred(y):
    tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(1.0, tau))
        pyro.sample("y", dist.Normal(theta, 3.0), obs=y)


def transformed(y):
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.LogNormal(0.0, 0.5))
        pyro.sample("y", dist.Normal(theta, 3.0), obs=y)


MODELS = {
    "loc and scale": poutine.reparam(centred, config={"theta": LocScaleReparam(0.0)}),
    "transform": poutine.reparam(transformed, config={"theta": TransformReparam()}),
}


@pytest.fixture(scope="module", params=MODELS, ids=str)
def result(request):
    model = MODELS[request.param]
    loss = ReverseKL(num_particles=16)
    return fit(model, AutoNormal(model), loss, Y, steps=600, seed=0, progress=False)


def test_it_is_in_the_posterior_with_its_value(result):
    posterior = dataset(to_arviz(result, num_samples=100), "posterior")
    theta = posterior["theta"].values
    assert theta.shape == (1, 100, 3)
    if "tau" in posterior:
        expected = 1 + posterior["tau"].values[..., None] * posterior["theta_decentered"].values
    else:
        expected = np.exp(posterior["theta_base"].values)
    np.testing.assert_allclose(theta, expected, rtol=1e-5)


def test_only_data_are_data(result):
    data = to_arviz(result, num_samples=100)
    assert list(dataset(data, "observed_data")) == ["y"]
    assert list(dataset(data, "posterior_predictive")) == ["y"]
    assert list(dataset(data, "log_likelihood")) == ["y"]


def test_it_can_be_left_out_and_compared(result):
    assert loo(result, num_samples=1000).n_data_points == 3
    comparison = compare({"a": result})
    assert [type(outcome).__name__ for outcome in comparison.outcomes] == ["Fitted"]
