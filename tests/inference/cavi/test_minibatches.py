"""Stochastic variational inference: local sites to the end, the others by a step."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference import by_index
from pyro_klmodes.inference.cavi import CAVI, RobbinsMonro
from tests.inference.cavi.helpers import prepared

N = 200


def model(y, subsample=None):
    tau = pyro.sample("tau", dist.Gamma(20.0, 5.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y), subsample=subsample) as index:
        z = pyro.sample("z", dist.Normal(mu, 1.5))
        pyro.sample("y", dist.Normal(z, tau.rsqrt()), obs=y[index])


def data():
    return 2 + 1.6 * torch.randn(N)


def sampler(size):
    return by_index(BatchSampler(RandomSampler(range(N)), size, drop_last=False))


def elbo_on_all(guide, y):
    """After the local sites have been updated for all data."""
    with prepared(model, guide, y) as ready:
        for _ in range(20):
            ready.sweeper.sweep(sites=["z"])
        return ready.sweeper.elbo


def test_minibatches_reach_the_elbo_of_all_data():
    y = data()
    full = CAVI(model).fit(y)
    best = float(full.elbos[-1])
    result = CAVI(model, step=RobbinsMonro(1, 0.8)).fit(y, batches=sampler(50), epochs=6)
    assert result.steps == 24
    assert result.epochs == 6
    reached = elbo_on_all(result.guide, y)
    start = float(full.elbos[0])
    assert 0 <= best - reached < 0.01 * abs(best)
    gap = abs(result.site_params["mu"]["loc"] - full.site_params["mu"]["loc"])
    assert gap < 0.5 * 1.5 / N**0.5  # half of a posterior standard deviation
    assert start < best


def test_a_model_that_draws_its_minibatch_gets_a_new_one_for_every_step():
    def own(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(y), subsample_size=20) as index:
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])

    y = data()
    result = CAVI(own, step=lambda t: 1 / t).fit(y, steps=100)
    q = result.site_params["mu"]
    # steps 1/t average the batches; sd of the mean of 100 batches of 20: 1.6 / sqrt(2000) = 0.036
    assert abs(q["loc"] - N * y.mean() / (N + 1 / 9)) < 0.15
    assert torch.allclose(q["scale"], torch.tensor(N + 1 / 9).rsqrt(), rtol=1e-8)


def test_a_full_batch_with_step_one_is_a_sweep():
    y = data()
    with prepared(model, None, y) as ready:
        before = ready.sweeper.params["tau"]["rate"]
        ready.sweeper.sweep(sites=["z"])
        ready.sweeper.sweep(sites=["tau", "mu"])
        loc, scale = ready.sweeper.params["z"]["loc"], ready.sweeper.params["z"]["scale"]
        expected = 5 + 0.5 * ((y - loc).square() + scale.square()).sum()
        assert torch.allclose(ready.sweeper.params["tau"]["rate"], expected)
        assert abs(before - expected) > 1


def test_local_sites_of_a_batch_are_updated_exactly():
    y = data()
    index = torch.tensor([3, 17, 99])
    result = CAVI(model, step=0.5).fit(y, batches=by_index([index]), epochs=1)
    guide = result.guide
    tau = guide.parameters_of("tau")
    assert guide.parameters_of("z")["loc"].shape == (N,)
    scale = guide.parameters_of("z")["scale"].detach()
    assert torch.allclose(scale[index], scale[index][0])  # all have the same information
    assert float(scale[index][0]) < 0.7  # far less than the prior's 1.5
    others = torch.ones(N, dtype=torch.bool)
    others[index] = False
    assert torch.equal(scale[others], torch.ones(N - 3))  # where they started
    assert float(tau["concentration"].detach()) > 60  # one batch stands for all data


def test_steps_that_cannot_be():
    with pytest.raises(InvalidArgument, match="forgetting=0.5"):
        RobbinsMonro(1, 0.5)
    with pytest.raises(InvalidArgument, match="delay=-1"):
        RobbinsMonro(-1)
    with pytest.raises(InvalidArgument, match=r"step\(1\) returned 2.0"):
        CAVI(model, step=lambda t: 2.0).fit(data())
    with pytest.raises(InvalidArgument, match="step=0 must be a number"):
        CAVI(model, step=0)
