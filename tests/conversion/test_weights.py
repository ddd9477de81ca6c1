"""k-hat of draws that come in blocks, and resampling by smoothed weights."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from models import conjugate_normal
from pyro_klmodes.conversion import to_arviz
from pyro_klmodes.conversion.weights import Tail
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.inference_data import dataset
from pyro_klmodes.weights import pareto_khat


@pytest.mark.parametrize("count", [4, 30, 1000])
@pytest.mark.parametrize("block", [7, 400, 5000])
def test_k_hat_of_blocks_is_that_of_all(count, block):
    log_w = torch.randn(count, 3, 50)
    tail = Tail(count)
    for part in log_w.split(block):
        tail.add(part)
    torch.testing.assert_close(tail.khat(), pareto_khat(log_w))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def tied(x):
    """The same in one weight: an auxiliary global site ties the cells."""
    pyro.sample("g", dist.Normal(torch.zeros(()), 1.0))
    model(x)


def wide(x):
    """Heavier tails than the posterior N(x/2, 1/2), and off by one standard deviation."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.StudentT(5.0, x / 2 + 0.7, 0.8))


def wide_and_global(x):
    pyro.sample("g", dist.Normal(torch.zeros(()), 1.0))
    wide(x)


@pytest.mark.parametrize(
    ("model_", "guide", "size"), [(model, wide, 20), (tied, wide_and_global, 2)]
)
def test_resampled_draws_have_the_moments_of_the_posterior(model_, guide, size):
    count = 8000
    x = conjugate_normal.data(size)
    options = {"args": (x,), "num_samples": count, "groups": ["posterior", "sample_stats"]}
    raw = dataset(to_arviz((model_, guide), **options), "posterior")["z"].values[0]
    data = to_arviz((model_, guide), **options, resample="psis")
    drawn = dataset(data, "posterior")["z"].values[0]

    # an effective sample size of 0.3 count at least for one cell, and its square for two
    error = np.sqrt(0.5) / np.sqrt(0.09 * count)
    assert (np.abs(raw.mean(0) - x.numpy() / 2) > 5 * 4 * error).all()
    assert (np.abs(drawn.mean(0) - x.numpy() / 2) < 4 * error).all()
    assert (np.abs(drawn.std(0) - np.sqrt(0.5)) < 4 * error).all()
    assert np.isin(drawn, raw).all()
    assert data.attrs["resample"] == "psis"
    assert "log_q" not in dataset(data, "sample_stats")
    assert "log_p" in dataset(data, "sample_stats")


def test_equal_weights_keep_every_draw():
    problem = conjugate_normal.problem()
    options = {"args": problem.args, "num_samples": 50, "groups": ["posterior"]}
    pair = (problem.model, problem.exact_guide)
    raw = dataset(to_arviz(pair, **options), "posterior")["z"].values
    drawn = dataset(to_arviz(pair, **options, resample="psis"), "posterior")["z"].values
    np.testing.assert_array_equal(drawn, raw)


def test_all_weights_zero():
    def impossible(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("never", torch.full_like(z, -torch.inf))

    def guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(InvalidArgument, match="all weights are zero"):
        to_arviz((impossible, guide), args=(None,), num_samples=100, resample="psis")


def test_a_hopeless_guide_is_resampled_with_a_warning():
    def far(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + 3.0, 0.3))

    with pytest.warns(KLModesWarning, match="resampling these draws does not"):
        to_arviz(
            (model, far),
            args=(conjugate_normal.data(4),),
            num_samples=1000,
            resample="psis",
            groups=["posterior"],
        )
