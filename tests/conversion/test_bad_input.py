"""Input that cannot be right is refused with the place and the way out."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoNormal

from models import conjugate_normal
from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.errors import (
    InvalidArgument,
    KLModesError,
    KLModesWarning,
    NotDefined,
    UnsupportedStructure,
)
from pyro_klmodes.inference_data import group_names
from pyro_klmodes.posteriors import Chains


def model(x, rows=None, size=None):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", size or len(x), subsample=rows):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def guide(x, rows=None, size=None):
    pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))


def test_a_minibatch_in_the_arguments_is_refused_until_there_are_full_data():
    minibatch = (torch.zeros(32), torch.arange(32), 1000)
    with pytest.raises(InvalidArgument, match=r"'data' \(32 of 1000\): pass args=\(...\) with the"):
        to_arviz((model, guide), args=minibatch)
    to_arviz((model, guide), args=(torch.zeros(1000),), num_samples=2)


@pytest.mark.parametrize("size", [9, 30])
def test_data_of_another_size_than_the_guide_knows(size):
    problem = conjugate_normal.hierarchical_problem()
    pair = (problem.model, AutoNormal(problem.model))
    pair[1](*problem.args)
    with pytest.raises(KLModesError):
        to_arviz(pair, args=(conjugate_normal.data(size),), num_samples=10)


def test_missing_arguments():
    with pytest.raises(InvalidArgument, match=r"missing .* 'x'\. .* as args=\(x, rows, size\)\."):
        to_arviz((model, guide))


def test_nan_parameters_and_draws():
    auto = AutoNormal(model)
    auto(torch.zeros(3))
    auto.locs.mu.data.fill_(torch.nan)
    with pytest.raises(InvalidArgument, match="NaN"):
        to_arviz((model, auto), args=(torch.zeros(3),), num_samples=10)
    draws = torch.zeros(2, 10)
    draws[1, 3] = torch.nan
    with pytest.raises(InvalidArgument, match="1 of 20 draws of site 'mu' are NaN"):
        to_arviz(Chains({"mu": draws}, model, (torch.zeros(3),)))


def test_weights_that_are_no_numbers():
    def broken(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("often", torch.where(z > 0, torch.inf, 0.0))

    def z_guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(InvalidArgument, match="log-weights of some draws are NaN"):
        to_arviz((broken, z_guide), args=(None,), num_samples=10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": True}, "num_samples=True"),
        ({"resample": "yes"}, "resample='yes'"),
        ({"groups": ["posterior", "prophecy"]}, "no group 'prophecy'"),
        ({"args": torch.zeros(3)}, "args must be a tuple"),
    ],
)
def test_arguments_of_the_wrong_kind(options, match):
    with pytest.raises(InvalidArgument, match=match):
        to_arviz((model, guide), **{"args": (torch.zeros(3),), **options})


def test_things_that_are_no_inference():
    with pytest.raises(InvalidArgument, match="is no finished inference"):
        to_arviz(3)
    kernel = NUTS(model)
    with pytest.raises(InvalidArgument, match="has no draws"):
        to_arviz(MCMC(kernel, num_samples=5, disable_progbar=True))


def test_chains_without_a_model_of_another_model_or_to_be_resampled():
    values = {"mu": torch.zeros(1, 5)}
    with pytest.raises(InvalidArgument, match="model of these chains is not known"):
        to_arviz(Chains(values))
    args = (conjugate_normal.data(),)
    with pytest.raises(InvalidArgument, match="no draws of latent site 'z'"):
        to_arviz(Chains(values, conjugate_normal.hierarchical_model, args))
    with pytest.raises(InvalidArgument, match="is for guides"):
        to_arviz(Chains(values, model, (torch.zeros(3),)), resample="psis")


def summed_with_a_latent():
    with pyro.plate("data", 2):
        c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z + c, 1.0), obs=torch.zeros(2))


def summed_guide():
    with pyro.plate("data", 2):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))


def test_a_group_that_a_model_does_not_have_is_left_out_or_refused():
    pair = (summed_with_a_latent, summed_guide)
    with pytest.warns(KLModesWarning, match="log_likelihood is left out: latent site 'z'"):
        data = to_arviz(pair, num_samples=10)
    assert "log_likelihood" not in group_names(data)
    assert "posterior_predictive" in group_names(data)
    with pytest.raises(UnsupportedStructure, match="latent site 'z'"):
        to_arviz(pair, num_samples=10, groups=["log_likelihood"])


def test_improper_priors_have_no_prior_group():
    def improper(x):
        real = dist.constraints.real
        mu = pyro.sample("mu", dist.ImproperUniform(real, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    chains = Chains({"mu": torch.zeros(1, 5)}, improper, (torch.zeros(3),))
    with pytest.raises((NotDefined, NotImplementedError)):
        to_arviz(chains, groups=["prior"])
