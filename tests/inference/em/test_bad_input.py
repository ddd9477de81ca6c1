"""What EM refuses, before any step: each message names the thing and says what to change."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch.distributions import constraints

from models import gaussian_mixture
from pyro_klmodes.errors import (
    DegenerateFit,
    InvalidArgument,
    NonFiniteLoss,
    NotMonotone,
    UnsupportedStructure,
)
from pyro_klmodes.inference import Anderson
from pyro_klmodes.inference.em import EM, CoordinateAscent, KMeansPlusPlus, MonteCarlo, Variational

X = [0.5, 1.0, 4.0, 5.0, 4.5, 0.2]


def mixture(x):
    weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraints.simplex)
    locs = pyro.param("locs", torch.tensor([0.0, 4.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(locs[z], 1.0), obs=x)


def without_parameters(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def counts_above(x):
    rate = pyro.param("rate", torch.tensor(1.0), constraints.positive)
    with pyro.plate("data", len(x)):
        n = pyro.sample("n", dist.Poisson(rate))
        pyro.sample("x", dist.Normal(n, 1.0), obs=x)


def continuous_above(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def many_causes(x):
    weight = pyro.param("weight", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        total = sum(pyro.sample(f"cause_{i}", dist.Bernoulli(0.5)) for i in range(30))
        pyro.sample("x", dist.Normal(weight * total, 1.0), obs=x)


def unused(x):
    pyro.param("other", torch.tensor(1.0))
    mixture(x)


def with_network(x):
    network = pyro.module("network", torch.nn.Linear(1, 1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(network(x[:, None])[:, 0], 1.0), obs=x)


class PlainParameter(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)


def nothing_observed(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.factor("f", loc * z)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (without_parameters, InvalidArgument, ["no pyro.param", "points="]),
        (counts_above, UnsupportedStructure, ["'n'", "MonteCarlo", "points=['n']"]),
        (continuous_above, UnsupportedStructure, ["'z'", "points=['z']", "MonteCarlo"]),
        (many_causes, UnsupportedStructure, ["'x'", "30", "1,073,741,824", "AutoMeanField"]),
        (unused, UnsupportedStructure, ["'other'", "PyroParam"]),
        (with_network, UnsupportedStructure, ["network", "pyro.module", "fit"]),
        (lambda x: PlainParameter()(x), UnsupportedStructure, ["'loc'", "PyroParam"]),
        (nothing_observed, UnsupportedStructure, ["observed"]),
    ],
)
def test_models_that_em_cannot_take(model, error, words):
    with pytest.raises(error) as raised:
        EM(model).fit(torch.tensor(X))
    for word in words:
        assert word in str(raised.value)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EM("mixture"), ["model"]),
        (lambda: EM(mixture, points="weights"), ["points", "list"]),
        (lambda: EM(mixture, acceleration="squarem"), ["acceleration", "Squarem()"]),
        (lambda: EM(mixture, floor=-1.0), ["floor"]),
        (lambda: EM(mixture, starts=0), ["starts"]),
        (lambda: EM(mixture, e_step="exact"), ["e_step", "Exact()"]),
        (lambda: EM(mixture, e_step=AutoNormal(mixture)), ["e_step", "Variational"]),
        (lambda: EM(mixture, e_step=MonteCarlo(), acceleration=Anderson()), ["acceleration"]),
        (lambda: EM(mixture, e_step=MonteCarlo(), starts=5), ["starts", "MonteCarlo"]),
        (lambda: EM(mixture, e_step=CoordinateAscent(), starts=KMeansPlusPlus(3)), ["starts"]),
        (lambda: CoordinateAscent(AutoNormal(mixture)), ["AutoMeanField", "Variational"]),
        (lambda: Variational(AutoNormal(mixture), steps=0), ["steps"]),
        (lambda: MonteCarlo(growth=0.5), ["growth"]),
        (lambda: EM(mixture, points=["weights"]).fit(torch.tensor(X)), ["weights", "latent"]),
        (lambda: EM(mixture, points=["z"]).fit(torch.tensor(X)), ["'z'", "discrete"]),
        (lambda: EM(mixture, starts={"mu": torch.zeros(1, 2)}).fit(torch.tensor(X)), ["'mu'"]),
        (
            lambda: EM(mixture, starts={"locs": torch.zeros(2)}).fit(torch.tensor(X)),
            ["'locs'", "(R, 2)"],
        ),
        (
            lambda: EM(mixture, starts={"weights": torch.tensor([[0.9, 0.9]])}).fit(
                torch.tensor(X)
            ),
            ["[0]", "constrains"],
        ),
        (lambda: EM(mixture).fit(torch.tensor(X), steps=0), ["steps"]),
        (lambda: EM(mixture).fit(torch.tensor(X), tolerance=-1.0), ["tolerance"]),
    ],
)
def test_arguments_of_the_wrong_kind(make, words):
    with pytest.raises(InvalidArgument) as raised:
        make()
    for word in words:
        assert word in str(raised.value)


def test_a_component_that_empties_is_named():
    x = torch.tensor(X)
    starts = {"locs": torch.tensor([[2.0, 1e4]])}

    with pytest.raises(DegenerateFit, match=r"'locs'\[1\].*no weight.*site 'x'"):
        EM(mixture, starts=starts).fit(x)


def test_a_covariance_that_collapses_is_named_and_a_floor_helps():
    x = torch.cat([torch.randn(20, 2), torch.full((1, 2), 50.0)])
    starts = {"locs": torch.tensor([[[0.0, 0.0], [50.0, 50.0]]])}

    with pytest.raises(DegenerateFit, match=r"'scale_trils'\[1\].*floor"):
        EM(gaussian_mixture.model, starts=starts).fit(x)

    kept = EM(gaussian_mixture.model, starts=starts, floor=0.01).fit(x)
    smallest = torch.linalg.svdvals(kept.params["scale_trils"][1]).min() ** 2
    assert float(smallest) == pytest.approx(0.01)


def test_one_start_that_fails_leaves_the_others_alone():
    x = torch.tensor(X)
    starts = {"locs": torch.tensor([[0.0, 4.0], [2.0, 1e4]])}

    result = EM(mixture, starts=starts).fit(x)

    assert list(result.restarts.faults) == [1]
    assert "no weight" in result.restarts.faults[1]
    assert result.restarts.best == 0
    assert torch.isinf(result.restarts.log_likelihood).tolist() == [False, True]


def test_data_that_are_no_numbers_are_named():
    with pytest.raises(NonFiniteLoss, match="1 of 2 values of model site 'x'.*nan"):
        EM(mixture).fit(torch.tensor([1.0, torch.nan]))


def test_a_model_that_changes_from_call_to_call_is_found_out():
    calls = []

    def restless(x):
        calls.append(None)
        mixture(x + 3.0 * (len(calls) > 30))  # not before the first steps

    with pytest.raises(NotMonotone, match=r"start 0.*change from call to call"):
        EM(restless).fit(torch.linspace(0.0, 5.0, 12), steps=60, tolerance=1e-12)
