"""Draws whose weights go through the model's graph are those that Pyro gives."""

import contextlib
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from pyro_klmodes import ReverseKL, draws, fit, guides
from pyro_klmodes.engine.draws import in_chunks, through_graph
from pyro_klmodes.engine.draws.model_graph import ModelGraph
from pyro_klmodes.engine.draws.rows import chunked, joined
from pyro_klmodes.engine.graphs.passes import reuse_memory
from pyro_klmodes.errors import KLModesWarning
from pyro_klmodes.tracing import blocks_of_draws
from pyro_klmodes.tracing.many_draws import many_draws
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.survey import survey

COUNTY = torch.tensor([0, 0, 1, 2, 4, 3, 1, 4, 4, 0, 2, 3])
Y = torch.linspace(-1.0, 2.0, 12)
GROUP = torch.tensor([0, 1, 1, 0])


def counties():
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("counties", 5):
        a = pyro.sample("a", dist.Normal(mu, sigma))
    with pyro.plate("houses", 12):
        pyro.sample("y", dist.Normal(a[COUNTY], sigma), obs=Y)


def local():
    with pyro.plate("data", 12):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("twice", 2):
            pyro.sample("y", dist.StudentT(4.0, z, 1.0), obs=torch.stack([Y, -Y]))


def with_rest():
    local()
    pyro.sample("apart", dist.Normal(1.0, 1.0), obs=Y[0])


def partly_observed():
    with pyro.plate("data", 12):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=Y, obs_mask=Y > 0.0)


def scaled():
    with poutine.scale(scale=2.0):
        local()


def enumerated():
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("clusters", 3):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("data", 12):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(loc[z], 1.0), obs=Y)


def minibatch():
    with pyro.plate("data", 12, subsample_size=4) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=Y[index])


def minibatch_guide():
    with pyro.plate("data", 12, subsample_size=4) as index:
        pyro.sample("z", dist.Normal(0.5 * Y[index], 0.7))


def positive():
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("data", 4):
        pyro.sample("n", dist.Poisson(rate * shares[GROUP]), obs=torch.tensor([1.0, 0.0, 3.0, 2.0]))


def positive_guide():
    pyro.sample("rate", dist.Gamma(5.0, 2.0))
    pyro.sample("shares", dist.Dirichlet(torch.tensor([2.0, 3.0])))


def of_matrices():
    cov = torch.eye(3) + 0.3
    z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(3), cov))
    tril = torch.linalg.cholesky(cov + z.square().sum(-1)[..., None, None] * torch.eye(3))
    pyro.sample("y", dist.MultivariateNormal(z, scale_tril=tril), obs=Y[:3])


def standard_normal():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def auto(model, kind=AutoNormal):
    return kind(poutine.block(model, hide=["z"]) if model is enumerated else model)


@pytest.fixture
def graphs(monkeypatch):
    """Little blocks and little chunks of them; the number of particles of every use of a graph."""
    used = []
    whole = ModelGraph.__call__

    def noted(self, values, count):
        used.append(count)
        return whole(self, values, count)

    monkeypatch.setattr(blocks_of_draws, "NUMBERS", 2**11)
    monkeypatch.setattr(in_chunks, "_NUMBERS", 2**9)
    monkeypatch.setattr(in_chunks, "_FEWEST_PARTICLES", 4)
    monkeypatch.setattr(reuse_memory, "_LARGE", 1)
    monkeypatch.setattr(ModelGraph, "__call__", noted)
    return used


def both(model, guide, blocks=15, *, rows=7):
    """Pyro's draws and those through the graph, of whole blocks and some more."""
    pair = Pair(model, guide)
    count = (blocks - 1) * (blocks_of_draws.NUMBERS // survey(pair).numbers) + rows
    pyro.set_rng_seed(1)
    expected = draws(model, guide, num_particles=count)
    after = torch.get_rng_state()
    pyro.set_rng_seed(1)
    found = many_draws(pair, count, by=through_graph)
    assert torch.equal(torch.get_rng_state(), after)
    return expected, found


def assert_same(expected, found):
    assert expected.values.keys() == found.values.keys()
    assert all(torch.equal(x, found.values[n]) for n, x in expected.values.items())
    assert torch.equal(expected.log_q, found.log_q)
    eps = torch.finfo(expected.log_p.dtype).eps
    torch.testing.assert_close(found.log_p, expected.log_p, rtol=100 * eps, atol=1000 * eps)
    for name in ("scale", "plates", "sources", "rest"):
        assert getattr(expected, name) == getattr(found, name)


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (counties, auto(counties)),
        (counties, auto(counties, AutoMultivariateNormal)),
        (counties, guides.AutoMeanField(counties)),
        (local, auto(local)),
        (scaled, auto(scaled)),
        (with_rest, auto(with_rest)),
        (enumerated, auto(enumerated)),
        (minibatch, minibatch_guide),
        (positive, positive_guide),
        (positive, auto(positive)),
        (of_matrices, auto(of_matrices)),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_draws_are_those_of_pyro(model, guide, graphs):
    expected, found = both(model, guide)
    assert_same(expected, found)
    assert len(graphs) == 14  # the first block to compare, all others but the last, which is small


def test_double_precision(graphs):
    double = torch.float64

    def model():
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3, dtype=double), 1.0).to_event(1))
        with pyro.plate("data", 12):
            pyro.sample("y", dist.Normal(mu[COUNTY % 3], 0.5), obs=Y.double())

    def guide():
        pyro.sample("mu", dist.Normal(torch.ones(3, dtype=double), 0.4).to_event(1))

    expected, found = both(model, guide)
    assert found.log_p.dtype == double
    assert_same(expected, found)
    assert graphs


def test_a_last_block_may_overlap_with_itself(graphs):
    expected, found = both(counties, auto(counties), rows=50)
    assert_same(expected, found)
    assert graphs[-1] == 50


def reads_numpy():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    level = torch.as_tensor(np.exp(z.detach().numpy()))
    pyro.sample("y", dist.Normal(level, 1.0), obs=torch.ones(()))


def weighs_data():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 12), poutine.scale(scale=torch.linspace(0.5, 1.5, 12)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=Y)


class Counting(torch.nn.Module):
    """Counts its runs in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self):
        with torch.no_grad():
            self.runs += 1
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.ones(()))


class Drifting:
    """Is another model in every run with many particles."""

    def __init__(self):
        self.runs = 0

    def __call__(self):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        self.runs += z.numel() > 8  # those of the survey are the same
        pyro.sample("y", dist.Normal(z + self.runs, 1.0), obs=torch.ones(()))


@pytest.mark.parametrize("model", [reads_numpy, weighs_data, partly_observed, Counting()])
def test_what_cannot_be_written_down_is_run_by_pyro(model, graphs):
    expected, found = both(model, auto(model))
    assert_same(expected, found)
    assert torch.equal(expected.log_p, found.log_p)
    assert not graphs


def test_a_graph_that_gives_something_else_is_not_used(graphs):
    both(Drifting(), standard_normal)
    assert len(graphs) == 1  # to be compared


def test_particles_that_share_nothing_are_run_one_by_one(monkeypatch):
    def branching():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        loc = 1.0 if z.item() > 0 else -1.0
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.ones(()))

    monkeypatch.setattr(blocks_of_draws, "NUMBERS", 2)
    found = []
    for by in (None, through_graph):
        pyro.set_rng_seed(1)
        with pytest.warns(KLModesWarning, match="one after the other"):
            found.append(many_draws(Pair(branching, auto(branching)), 20, by=by).log_w)
    assert torch.equal(*found)


@pytest.mark.parametrize("validate", [True, False])
def test_a_log_density_that_is_not_a_number_is_found(validate, graphs):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 12):
            width = torch.where(z > 3.2, z.new_tensor(math.nan), torch.ones_like(z))
            pyro.sample("far", dist.Normal(z, width), obs=Y)

    pyro.set_rng_seed(1)
    expected = contextlib.nullcontext()
    if validate:  # the block is run again for that
        expected = pytest.raises(ValueError, match="Expected parameter scale")
    with pyro.validation_enabled(validate), expected:
        found = many_draws(Pair(model, standard_normal), 4000, by=through_graph)
        assert torch.equal(found.log_p.isnan(), found.values["z"] > 3.2)
    assert graphs


def test_weights_of_zero_are_those_of_pyro(graphs):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("cut", torch.where(z > 1.0, z.new_tensor(-math.inf), z))

    expected, found = both(model, standard_normal)
    assert torch.equal(expected.log_p, found.log_p)
    assert (found.log_p == -math.inf).any()


def test_after_the_first_block_no_run_holds_more_than_a_chunk(graphs):
    sizes = []

    def watched():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        sizes.append(z.numel())
        with pyro.plate("data", 12):
            pyro.sample("y", dist.Normal(z, 1.0), obs=Y)

    guide = auto(watched)
    both(watched, guide)
    sizes.clear()
    many_draws(Pair(watched, guide), 4000, by=through_graph)
    first, second, *rest = [size for size in sizes if size > 8]  # the survey takes 8
    assert second <= first / 4
    assert all(size < second for size in rest)  # the end of the last block


def test_few_blocks_are_run_by_pyro(graphs):
    expected, found = both(counties, auto(counties), blocks=11)
    assert torch.equal(expected.log_p, found.log_p)
    assert not graphs


def test_many_little_sites_are_run_by_pyro(graphs):
    def walk():
        x = pyro.sample("x0", dist.Normal(0.0, 1.0))
        for t in range(1, 33):
            x = pyro.sample(f"x{t}", dist.Normal(x, 1.0), obs=torch.zeros(()))

    expected, found = both(walk, lambda: pyro.sample("x0", dist.Normal(0.0, 1.0)))
    assert torch.equal(expected.log_p, found.log_p)
    assert not graphs


def test_results_of_fits_use_it(graphs):
    result = fit(counties, auto(counties), loss=ReverseKL(2), steps=2, progress=False)
    found = result.draws(3000, seed=5)
    assert graphs
    with result.scope():
        pyro.set_rng_seed(5)
        expected = draws(counties, result.guide.unbound, num_particles=3000)
    assert_same(expected, found)
    assert all(torch.equal(x, found.values[n]) for n, x in result.sample(3000, seed=5).items())
    assert torch.equal(result.log_weights(3000, seed=5), found.log_w)


def test_eager_fits_do_not_use_it(graphs):
    loss, guide = ReverseKL(2), auto(counties)
    result = fit(counties, guide, loss=loss, steps=2, progress=False, engine="eager")
    result.draws(3000)
    assert not graphs


@pytest.mark.parametrize("count", [6, 9, 12])
def test_rows_are_cut_up_and_put_together(count):
    x = torch.randn(2, count, 3)
    chunks = chunked(x, 1, count, 6)
    assert {chunk.shape for chunk in chunks} == {(2, 6, 3)}
    assert torch.equal(joined(chunks, -2, count, 6), x)
    for same in (torch.randn(3), torch.randn(1, 3)):
        assert torch.equal(joined(chunked(same, None, count, 6), -2, count, 6), same)
