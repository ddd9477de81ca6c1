"""A latent that all batches share needs to know how many data there are.

mu ~ N(0, 10^2), x_i ~ N(mu, 1): the posterior sd of N data is about 1 / sqrt(N), so that a fit that
takes each batch of B for all data ends about sqrt(N / B) times too wide.
"""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from pyro_klmodes import ReverseKL, estimators, fit
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference import Evaluate, by_index, held_out_bound

N, B = 100, 10
X = torch.linspace(-1, 3, N)


def mean_guide(*args, **kwargs):
    loc = pyro.param("loc", lambda: torch.tensor(0.5))
    sd = pyro.param("sd", lambda: torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, sd))


def whole(x, subsample=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x), subsample=subsample) as index:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[index])


def by_size(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", N, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def scaled(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)), poutine.scale(scale=N / len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def one_by_one(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(mu, 1.0), obs=x[i])


def hierarchical(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def hierarchical_guide(x):
    mean_guide()
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def local(x):
    """As many times as data in a batch, and a latent that is not in the plate of the times."""
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("times", B, dim=-1):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None].expand(-1, B))


def local_guide(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x[:, None], pyro.param("sd", torch.tensor(1.0))))


def loader():
    return DataLoader(TensorDataset(X), batch_size=B, shuffle=True)


def run(model, guide=mean_guide, *args, loss=None, batches=None, **kwargs):
    kwargs = {"epochs": 1, "progress": False, **kwargs}
    return fit(model, guide, loss or ReverseKL(2), *args, batches=batches or loader(), **kwargs)


@pytest.mark.parametrize(
    ("model", "guide", "loss"),
    [
        (whole, mean_guide, ReverseKL(2)),
        (whole, mean_guide, Trace_ELBO()),
        (one_by_one, mean_guide, ReverseKL(2)),
        (hierarchical, hierarchical_guide, ReverseKL(2)),
    ],
)
def test_a_fit_to_one_batch_at_a_time_is_warned_of_once(model, guide, loss):
    steps = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(model, guide, loss=loss, callbacks=[steps.append])
    ours = [w for w in caught if w.category is KLModesWarning]
    assert len(ours) == 1
    assert "latent 'mu' is outside of plate 'data'" in str(ours[0].message)
    assert 'pyro.plate("data", N, subsample=index)' in str(ours[0].message)
    assert len(steps) == N // B


@pytest.mark.parametrize(
    ("model", "guide", "batches"),
    [
        (by_size, mean_guide, loader()),
        (scaled, mean_guide, loader()),
        (local, local_guide, loader()),
        (whole, mean_guide, [X]),  # the batch is all data
    ],
    ids=["subsampled", "scaled", "local", "one batch"],
)
def test_a_model_that_knows_its_data_is_not(model, guide, batches):
    assert run(model, guide, batches=batches).steps == len(batches)  # warnings are errors


def test_the_way_out_leads_to_the_posterior():
    """Precision 1 / 100 + N; one batch has 1 / 100 + B, which is three times as wide."""
    exact, of_a_batch = ((0.01 + n) ** -0.5 for n in (N, B))
    sampler = BatchSampler(RandomSampler(X), B, drop_last=False)
    result = run(
        whole,
        mean_guide,
        X,
        loss=ReverseKL(4, estimator=estimators.pathwise),
        batches=by_index(sampler),
        epochs=150,
        optim=pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.96}
        ),
    )
    tolerance = 0.02
    assert of_a_batch - exact > 5 * tolerance
    assert result.params["sd"].item() == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("model", [whole, by_size, scaled])
def test_a_bound_per_datum_is_refused(model):
    with pytest.raises(InvalidArgument, match="latent 'mu' is outside of plate 'data', so that"):
        held_out_bound(model, mean_guide, batches=loader(), num_particles=2)


def test_a_bound_per_datum_by_index_is_refused():
    batches = by_index(BatchSampler(RandomSampler(X), B, drop_last=False))
    with pytest.raises(InvalidArgument, match="latent 'mu' is outside of plate 'data', so that"):
        held_out_bound(whole, mean_guide, X, batches=batches, num_particles=2)


def test_following_such_a_bound_is_refused_before_training():
    steps = []
    evaluate = Evaluate(batches=loader(), num_particles=2)
    with pytest.raises(InvalidArgument, match="latent 'mu' is outside of plate 'data', so that"):
        run(by_size, callbacks=[steps.append, evaluate])
    assert not steps


def test_all_data_at_once_have_a_bound():
    """The evidence of two data is N(x; 0, I + 100 1 1')."""

    def posterior(x):
        precision = 0.01 + len(x)
        pyro.sample("mu", dist.Normal(x.sum() / precision, precision**-0.5))

    x = X[:2].double()
    exact = dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2) + 100.0).log_prob(x)
    for given in ({"batches": [x]}, {}):
        args = () if given else (x,)
        found = held_out_bound(whole, posterior, *args, num_particles=3, **given)
        assert found.bound == pytest.approx(exact.item(), abs=1e-6)
        assert math.isnan(found.standard_error)


def test_local_latents_are_bounded_per_datum():
    found = held_out_bound(local, local_guide, batches=loader(), num_particles=2)
    assert found.per_datum.shape == (N,)
