"""The bound on held-out data is the evidence where the guide is the posterior, and grows with K.

z ~ N(0, I), x = W z + b + N(0, s^2 I): the evidence of a datum is N(x; b, W W' + s^2 I), and the
posterior normal with precision I + W'W / s^2.
"""

import math
import random
import resource

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_klmodes import IWAE, ReverseKL, fit
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference import Evaluate, by_index, held_out_bound

W = torch.tensor([[1.0, -0.5], [0.3, 2.0], [0.7, 0.1]], dtype=torch.float64)
B = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
S = 0.6
X = torch.tensor(
    [[0.3, 1.0, -0.4], [2.0, -3.0, 0.1], [-1.0, 0.5, 0.5], [0.0, -1.0, 4.0]], dtype=torch.float64
)
PRECISION = torch.eye(2) + W.T @ W / S**2
EXACT = dist.MultivariateNormal(B, W @ W.T + S**2 * torch.eye(3).double()).log_prob(X)


def model(x, subsample=None):
    with pyro.plate("data", len(x), subsample=subsample) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T + B, S).to_event(1), obs=x[index])


def posterior(x, subsample=None, shift=0.0):
    with pyro.plate("data", len(x), subsample=subsample) as index:
        mean = torch.linalg.solve(PRECISION, W.T @ (x[index] - B).T / S**2).T
        pyro.sample("z", dist.MultivariateNormal(mean + shift, precision_matrix=PRECISION))


def shifted(x):
    posterior(x, shift=0.3)


def states():
    numpy = [np.asarray(part).tolist() for part in np.random.get_state()]
    return torch.get_rng_state().tolist(), random.getstate(), numpy


@pytest.mark.parametrize(("num_particles", "chunk"), [(1, 100), (7, 3), (20, 20)])
def test_the_posterior_gives_the_evidence(num_particles, chunk):
    before = states()
    found = held_out_bound(model, posterior, X, num_particles=num_particles, chunk=chunk)
    torch.testing.assert_close(found.per_datum, EXACT)
    assert found.bound == pytest.approx(EXACT.mean().item())
    assert found.standard_error == pytest.approx(EXACT.std().item() / 2)
    assert found.num_particles == num_particles
    assert states() == before
    assert len(pyro.get_param_store()) == 0
    assert str(found).startswith("log p(x) >= ")


def test_batches_are_put_together():
    loader = DataLoader(TensorDataset(X), batch_size=3)
    found = held_out_bound(model, posterior, batches=loader, num_particles=4)
    torch.testing.assert_close(found.per_datum, EXACT)
    found = held_out_bound(model, posterior, X, batches=by_index([[2, 0], [3]]), num_particles=4)
    torch.testing.assert_close(found.per_datum, EXACT[[2, 0, 3]])


def test_it_is_the_elbo_of_one_draw_and_closer_with_more():
    """The shift costs 0.3^2 * sum(precision) / 2 in the ELBO; means of 4000 draws."""
    cost = 0.3**2 * PRECISION.sum().item() / 2
    gaps = {}
    for K in (1, 10, 100):
        many = X.repeat(1000, 1)
        found = held_out_bound(model, shifted, many, num_particles=K)
        gap = EXACT.repeat(1000) - found.per_datum
        gaps[K] = gap.mean().item(), gap.std().item() / math.sqrt(4000)
    assert abs(gaps[1][0] - cost) < 4 * gaps[1][1]
    assert gaps[1][0] > 5 * gaps[10][0] > 5 * gaps[100][0] > 0


def test_chunks_do_not_matter_beyond_the_draws():
    values = [
        held_out_bound(model, shifted, X, num_particles=4000, chunk=chunk).per_datum
        for chunk in (4000, 1999)
    ]
    assert not torch.equal(*values)
    # relative sd of a weight is sqrt(exp(2 * 0.3^2 * sum(precision) / 2) - 1)
    sd = math.sqrt(math.expm1(0.3**2 * PRECISION.sum().item()) / 4000)
    assert (values[0] - values[1]).abs().max() < 4 * math.sqrt(2) * sd


@pytest.mark.slow
def test_five_thousand_draws_of_four_hundred_data_fit_in_memory():
    """All at once one tensor of the likelihood would take 5000 * 400 * 16 * 8 bytes, 256 MB."""
    net = nn.Linear(2, 16)

    def wide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = held_out_bound(wide, guide, torch.randn(400, 16), num_particles=5000, chunk=50)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found.per_datum.shape == (400,)
    assert grown < 100 * 1024


def test_a_model_without_local_latents_is_one_datum():
    """mu ~ N(0, 1), two data of unit noise: N(x; 0, I + 1 1')."""
    x = torch.tensor([0.5, 2.0])

    def joint(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def exact(x):
        pyro.sample("mu", dist.Normal(x.sum() / 3, math.sqrt(1 / 3)))

    found = held_out_bound(joint, exact, x, num_particles=3)
    evidence = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x)
    assert found.bound == pytest.approx(evidence.item())
    assert math.isnan(found.standard_error)


def test_sites_that_no_latent_reaches_count():
    def with_more(x):
        model(x)
        pyro.sample("other", dist.Normal(0.0, 1.0), obs=torch.tensor(2.0))

    found = held_out_bound(with_more, posterior, X, num_particles=3)
    other = dist.Normal(0.0, 1.0).log_prob(torch.tensor(2.0)).item()
    assert found.bound == pytest.approx(EXACT.mean().item() + other / 4)


def test_a_model_with_its_own_minibatch_stays_with_it():
    def small(x):
        with pyro.plate("data", len(x), subsample_size=2) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T + B, S).to_event(1), obs=x[index])

    def its_guide(x):
        with pyro.plate("data", len(x), subsample_size=2) as index:
            mean = torch.linalg.solve(PRECISION, W.T @ (x[index] - B).T / S**2).T
            pyro.sample("z", dist.MultivariateNormal(mean, precision_matrix=PRECISION))

    values = held_out_bound(small, its_guide, X, num_particles=9, chunk=2).per_datum
    gaps = (values[:, None] - EXACT).abs().min(1).values
    assert gaps.max() < 1e-12
    assert values.shape == (2,)


class Dropping(nn.Module):
    """A guide with dropout and batch normalisation."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)
        )

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


@pytest.mark.parametrize("hidden", [False, True])
def test_modules_are_as_in_evaluation_and_put_back(hidden):
    net = Dropping()
    net.net[0].eval()
    flags = [m.training for m in net.modules()]
    buffers = [b.clone() for b in net.buffers()]
    guide = (lambda x: net(x)) if hidden else net
    found = held_out_bound(model, guide, X, num_particles=3)
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))
    net.eval()
    again = held_out_bound(model, guide, X, num_particles=3)
    assert torch.equal(found.per_datum, again.per_datum)


def learned(x):
    gain = pyro.param("gain", lambda: torch.zeros(3, 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ gain, 0.5).to_event(1))


def run(callbacks, **kwargs):
    loader = DataLoader(TensorDataset(X), batch_size=2, shuffle=True)
    where = kwargs or {"batches": loader, "epochs": 4}
    args = () if "batches" in where else (X,)
    return fit(model, learned, ReverseKL(1), *args, callbacks=callbacks, progress=False, **where)


def test_the_callback_follows_the_bound_and_disturbs_nothing():
    each, second = Evaluate(X, num_particles=8), Evaluate(batches=[X[:2], X[2:]], every=2)
    result = run([each, second])
    assert [(r.epoch, r.step) for r in each.records] == [(0, 1), (1, 3), (2, 5), (3, 7)]
    assert [(r.epoch, r.step) for r in second.records] == [(1, 3), (3, 7)]
    found = held_out_bound(model, result.guide, X, num_particles=8)
    assert each.records[-1].bound == found.bound
    assert each.records[-1].standard_error == found.standard_error
    assert torch.equal(result.losses, run([]).losses)
    assert each.records[-1].bound > each.records[0].bound
    bounds = [r.bound for r in each.records]
    run([each])
    assert [r.bound for r in each.records] == bounds


def test_without_epochs_it_counts_steps():
    each = Evaluate(X, num_particles=2, every=3)
    run([each], steps=7)
    assert [(r.epoch, r.step) for r in each.records] == [(None, 2), (None, 5)]


def test_the_guide_of_a_fit_brings_its_parameters():
    result = fit(model, learned, IWAE(4), X, steps=3, progress=False)
    with result.scope():
        inside = held_out_bound(model, learned, X, num_particles=4)
    outside = held_out_bound(model, result.guide, X, num_particles=4)
    assert torch.equal(inside.per_datum, outside.per_datum)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: held_out_bound(model, posterior, X, num_particles=0), "num_particles=0"),
        (lambda: held_out_bound(model, posterior, X, chunk=0), "chunk=0"),
        (lambda: held_out_bound(model, posterior, batches=[X, X[:0]]), "batch 1 is empty"),
        (lambda: Evaluate(X, num_particles=True), "num_particles=True"),
        (lambda: Evaluate(X, every=0), "every=0"),
        (lambda: Evaluate(batches=iter([X])), "only once, which is not enough"),
        (lambda: Evaluate(batches=X), "not of type Tensor"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def padded(x, keep):
    with pyro.plate("data", len(x)), poutine.mask(mask=keep):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T + B, S).to_event(1), obs=x)


def padded_posterior(x, keep):
    with poutine.mask(mask=keep):
        posterior(x)


def unseen(x, keep):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        likelihood = dist.Normal(z @ W.T + B, S).to_event(1)
        pyro.sample("x", likelihood.mask(keep), obs=x)


def unseen_posterior(x, keep):
    posterior(x)


def summed_out(x, keep):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with poutine.mask(mask=keep):
            mean = z @ W.T + B + 0.0 * c.unsqueeze(-1)
            pyro.sample("x", dist.Normal(mean, S).to_event(1), obs=x)


@pytest.mark.parametrize(
    "pair",
    [(padded, padded_posterior), (unseen, unseen_posterior), (summed_out, unseen_posterior)],
)
def test_data_that_are_masked_out_are_none(pair):
    # the last two fill up a batch; a third batch is empty
    filled = torch.cat([X, 100 * X[:2]])
    keep = torch.arange(6) < 4
    batches = [(filled[2:], keep[2:]), (filled[:2], keep[:2]), (X, torch.zeros(4) > 0)]
    whole = held_out_bound(*pair, filled, keep, num_particles=3)
    parts = held_out_bound(*pair, batches=batches, num_particles=3)
    assert whole.num_data == parts.num_data == 4
    assert torch.equal(~whole.per_datum.isnan(), keep)
    torch.testing.assert_close(whole.per_datum[:4], EXACT)
    for found in (whole, parts):
        assert found.bound == pytest.approx(EXACT.mean().item())
        assert found.standard_error == pytest.approx(EXACT.std().item() / 2)
        assert "(4 data" in str(found)


def test_no_data_at_all_are_refused():
    with pytest.raises(InvalidArgument, match="all data are masked out"):
        held_out_bound(padded, padded_posterior, X, torch.zeros(4) > 0, num_particles=3)
