"""What a guide must survive: prediction, calls in between, earlier guides, copies, pruning."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import Adam

from pyro_klmodes import ReverseKL, boost, fit
from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides import (
    At,
    AutoAmortized,
    AutoAutoregressive,
    AutoMeanField,
    AutoMixture,
    Network,
)
from tests.guides.registry import GUIDES, SITEWISE

X = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)


def regression(x, y=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def local(x, idx=None):
    with pyro.plate("data", len(x), subsample=idx) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])


def two_modes():
    prior = dist.Normal(0.0, 3.0)
    z = pyro.sample("z", prior)
    pyro.factor("f", -4.0 * (z.abs() - 2.0) ** 2)


@pytest.mark.parametrize("name", GUIDES)
def test_predicts_what_was_observed(name):
    guide = GUIDES[name](regression)
    guide(X, X)
    for x in (X, X[:2]):
        drawn = Predictive(regression, guide=guide, num_samples=3)(x)
        assert drawn["y"].shape == (3, len(x))


@pytest.mark.parametrize("name", SITEWISE)
def test_a_call_on_all_data_does_not_forget_the_minibatch(name):
    guide = SITEWISE[name](local)
    guide(X, torch.tensor([4, 1]))
    guide(X)
    for _ in range(5):
        assert guide.sample(1, X, torch.tensor([4, 1]))["data"].tolist() == [4, 1]


def test_all_data_in_another_order_are_refused():
    guide = AutoMeanField(local)
    with pytest.raises(UnsupportedStructure, match="plate 'data'.*another order"):
        guide(X, torch.tensor([1, 0, 2, 3, 4, 5]))
    guide(X, torch.arange(6))


def test_another_support_is_refused():
    def model(x):
        pyro.sample("z", dist.Uniform(0.0, float(len(x))))

    guide = AutoMeanField(model)
    guide(X)
    with pytest.raises(UnsupportedStructure, match="site 'z' has support"):
        guide(X[:2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: AutoAmortized(local),
        lambda: AutoAutoregressive(local_pair, conditioning=Network((4,))),
    ],
    ids=["amortized", "network"],
)
def test_networks_are_trained_after_an_earlier_guide_of_the_same_name(make):
    model = make().model
    svi = SVI(model, make(), Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(X)
    guide = make()
    guide(X)
    copied = copy.deepcopy(guide)
    for trained in (guide, copied):
        values = trained.sample(3, X)
        before = trained.log_prob(values, X).detach()
        svi = SVI(model, trained, Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(3):
            svi.step(X)
        networks = [
            p for m in trained.modules() if isinstance(m, torch.nn.Linear) for p in [m.bias]
        ]
        stored = {id(p) for _, p in pyro.get_param_store().named_parameters()}
        assert networks
        assert all(id(p) in stored for p in networks)
        assert not torch.equal(trained.log_prob(values, X).detach(), before)


def local_pair(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def test_the_data_are_the_very_tensor_that_is_observed():
    def model(other, y):
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(other, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    guide = AutoAmortized(model)
    guide(torch.zeros(5), torch.zeros(5))
    assert guide._source.name == "y"


def test_a_pruned_mixture_is_trained_on():
    guide = AutoMixture(two_modes, 3, start=At(torch.tensor([[-2.0], [0.0], [2.0]])))
    SVI(two_modes, guide, Adam({"lr": 0.01}), Trace_ELBO()).step()
    small = guide.prune(keep=2)
    SVI(two_modes, small, Adam({"lr": 0.01}), Trace_ELBO()).step()
    assert len(small.weights()) == 2


def test_a_boosted_mixture_is_trained_on():
    guide = boost(two_modes, num_components=2, steps=20, progress=False).guide
    before = guide.sample(1)["z"]
    assert before.shape == (1,)
    result = fit(two_modes, guide, ReverseKL(4), steps=3, progress=False)
    assert len(result.losses) == 3
    assert bool(result.losses.isfinite().all())


@pytest.mark.parametrize("name", SITEWISE)
def test_a_median_is_not_a_parameter(name):
    guide = SITEWISE[name](local)
    svi = SVI(local, guide, Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(X)
    median = guide.median(X)["z"]
    assert not median.requires_grad
    kept = median.clone()
    svi.step(X)
    torch.testing.assert_close(median, kept, rtol=0, atol=0)
