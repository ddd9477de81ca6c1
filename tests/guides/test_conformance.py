"""Every guide on every kind of support, under the shipped laws, and in Pyro's hands."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuideList
from pyro.optim import Adam

import pyro_klmodes as kl
from pyro_klmodes.testing import GUIDE_LAWS, assert_integrates_to_one
from tests.guides.priors import PRIORS
from tests.guides.registry import GUIDES
from tests.registry import LOSSES


def model(y):
    """Global and local latents on three supports, with a plate."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.Gamma(4.0, 4.0))
    pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, scale))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


DATA = torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64)


def shaken(guide, *args, size=0.2, seed=3):
    """The guide with parameters that are not those it starts with."""
    guide(*args)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in pyro.get_param_store().named_parameters():
            p += size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return guide


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", GUIDES)
def test_the_density_integrates_to_one(name, prior):
    guide = shaken(GUIDES[name](PRIORS[prior]))
    assert_integrates_to_one(PRIORS[prior], guide)


def share_of(rows, columns, every):
    """All pairs; but one of so many of each row, and of each column, the others marked as slow."""
    return [
        pytest.param(row, column, marks=() if (i + j) % every == 0 else pytest.mark.slow)
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]


@pytest.mark.parametrize("law", GUIDE_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    ("name", "prior"),
    [
        *((name, "several_sites") for name in GUIDES),
        *share_of(GUIDES, ["plate", "simplex"], every=2),
    ],
)
def test_law(name, prior, law):
    law(PRIORS[prior], shaken(GUIDES[name](PRIORS[prior])))


@pytest.mark.parametrize("name", GUIDES)
def test_no_site_but_those_of_the_model(name):
    guide = GUIDES[name](model)
    trace = poutine.trace(guide).get_trace(DATA)
    drawn = [n for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"]
    assert drawn == ["mu", "scale", "share", "z"]
    assert all(not trace.nodes[n]["infer"].get("is_auxiliary") for n in drawn)


@pytest.mark.parametrize("name", GUIDES)
def test_density_of_own_draws_is_that_of_the_trace(name):
    guide = shaken(GUIDES[name](model), DATA)
    trace = poutine.trace(guide).get_trace(DATA)
    values = {n: trace.nodes[n]["value"].detach() for n in ("mu", "scale", "share", "z")}
    torch.testing.assert_close(guide.log_prob(values, DATA), trace.log_prob_sum())


@pytest.mark.parametrize(("name", "loss"), share_of(GUIDES, LOSSES, every=3))
def test_trains_under_every_loss(name, loss):
    guide = GUIDES[name](model)
    svi = SVI(model, guide, Adam({"lr": 0.001}), loss=LOSSES[loss]())
    before = None
    for _ in range(3):
        assert math.isfinite(svi.step(DATA))
        before = before or {n: p.detach().clone() for n, p in _parameters()}
    assert any(not torch.equal(p, before[n]) for n, p in _parameters())


def _parameters():
    return pyro.get_param_store().named_parameters()


@pytest.mark.parametrize(
    "loss",
    [
        lambda: Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1),
        lambda: Trace_ELBO(2),
        lambda: TraceMeanField_ELBO(4, vectorize_particles=True, max_plate_nesting=1),
        lambda: RenyiELBO(0.0, 4, vectorize_particles=True, max_plate_nesting=1),
    ],
    ids=["elbo", "elbo_looped", "mean_field_elbo", "renyi"],
)
@pytest.mark.parametrize("name", GUIDES)
def test_trains_under_pyros_losses_first_called_inside_of_the_particle_plate(name, loss):
    guide = GUIDES[name](model)
    svi = SVI(model, guide, Adam({"lr": 0.001}), loss=loss())
    assert all(math.isfinite(svi.step(DATA)) for _ in range(3))
    drawn = guide(DATA)
    assert {n: tuple(v.shape) for n, v in drawn.items()} == {
        "mu": (),
        "scale": (),
        "share": (3,),
        "z": (3,),
    }


@pytest.mark.parametrize("name", GUIDES)
def test_pyros_elbo_is_ours(name):
    """The same expectation, by another route: 4 standard errors of 2000 draws each."""
    guide = shaken(GUIDES[name](model), DATA)
    ours = kl.draws(model, guide, (DATA,), num_particles=2000)
    log_w = (ours.log_p - ours.log_q).reshape(2000, -1).sum(1)
    elbo = Trace_ELBO(50, vectorize_particles=True, max_plate_nesting=1)
    theirs = -torch.tensor([elbo.loss(model, guide, DATA) for _ in range(40)])
    error = math.hypot(float(log_w.std()) / 2000**0.5, float(theirs.std()) / 40**0.5)
    assert abs(float(log_w.mean() - theirs.mean())) < 4 * error


@pytest.mark.parametrize("name", GUIDES)
def test_copies_have_the_same_density(name):
    guide = shaken(GUIDES[name](model), DATA)
    values = guide.sample(5, DATA)
    expected = guide.log_prob(values, DATA)
    copied = copy.deepcopy(guide)
    assert copied.model is guide.model
    torch.testing.assert_close(copied.log_prob(values, DATA), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(guide)).log_prob(values, DATA), expected)


@pytest.mark.parametrize("name", [n for n in GUIDES if n != "distribution"])
def test_state_dict_restores_the_density(name):
    guide = shaken(GUIDES[name](model), DATA)
    values = guide.sample(5, DATA)
    expected, state = guide.log_prob(values, DATA), copy.deepcopy(guide.state_dict())
    pyro.clear_param_store()
    fresh = GUIDES[name](model)
    fresh(DATA)
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh.log_prob(values, DATA), expected)


@pytest.mark.parametrize("name", [n for n in GUIDES if n != "distribution"])
def test_changes_its_precision(name):
    guide = GUIDES[name](model)
    guide(DATA)
    guide.to(torch.float32)
    pyro.clear_param_store()
    assert all(v.dtype == torch.float32 for v in guide(DATA).values())


@pytest.mark.parametrize("name", GUIDES)
def test_predictive(name):
    guide = GUIDES[name](model)
    for parallel in (False, True):
        drawn = Predictive(model, guide=guide, num_samples=4, parallel=parallel)(DATA)
        assert drawn["z"].shape[0] == 4
        assert drawn["z"].numel() == 12


@pytest.mark.parametrize("name", GUIDES)
def test_part_of_a_list(name):
    guide = AutoGuideList(model)
    guide.append(GUIDES[name](poutine.block(model, expose=["mu", "z"])))
    guide.append(kl.guides.AutoMeanField(poutine.block(model, expose=["scale", "share"])))
    svi = SVI(model, guide, Adam({"lr": 0.001}), loss=kl.ReverseKL(3))
    assert math.isfinite(svi.step(DATA))
    assert set(guide(DATA)) == {"mu", "z", "scale", "share"}


@pytest.mark.parametrize("name", GUIDES)
def test_two_fits_in_one_process_are_alike(name):
    losses = []
    for _ in range(2):
        result = kl.fit(
            model, GUIDES[name](model), kl.ReverseKL(4), DATA, steps=3, seed=1, progress=False
        )
        losses.append(result.losses)
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("name", GUIDES)
def test_handlers_reach_the_sites(name):
    guide = shaken(GUIDES[name](model), DATA)
    trace = poutine.trace(guide).get_trace(DATA)
    again = poutine.trace(poutine.replay(guide, trace=trace)).get_trace(DATA)
    torch.testing.assert_close(again.log_prob_sum(), trace.log_prob_sum())
    scaled = poutine.trace(poutine.scale(poutine.replay(guide, trace=trace), 0.5)).get_trace(DATA)
    torch.testing.assert_close(scaled.log_prob_sum(), 0.5 * trace.log_prob_sum())
