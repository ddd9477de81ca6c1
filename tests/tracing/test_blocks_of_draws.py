"""Many draws in blocks: bounded memory, the same numbers, and one way of cutting them up."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_klmodes import ReverseKL, draws, fit
from pyro_klmodes.tracing import blocks_of_draws
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.lean import Lean
from pyro_klmodes.tracing.over_particles import NotMapped, over_particles
from pyro_klmodes.tracing.predict import predict

X = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
COUNTY = torch.tensor([0, 0, 1, 2])


def model(calls=None):
    if calls is not None:
        calls.append(1)
    sd = pyro.sample("sd", dist.HalfNormal(1.0))
    with pyro.plate("counties", 3):
        a = pyro.sample("a", dist.Normal(0.0, sd))
    with pyro.plate("data", 4):
        loc = pyro.deterministic("loc", a[COUNTY])
        pyro.sample("x", dist.Normal(loc, 1.0), obs=X)


def broadcasting():
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)


def of_four_numbers(monkeypatch, numbers):
    monkeypatch.setattr(blocks_of_draws, "NUMBERS", numbers)


def exact(values):
    a, sd = values["a"], values["sd"]
    prior = dist.HalfNormal(1.0).log_prob(sd) + dist.Normal(0.0, sd[:, None]).log_prob(a).sum(1)
    return prior + dist.Normal(a[:, COUNTY], 1.0).log_prob(X).sum(1)


@pytest.mark.parametrize("by_site", [False, True])
def test_blocks_are_weighed_as_a_whole(by_site, monkeypatch):
    guide = AutoNormal(model)
    of_four_numbers(monkeypatch, 16 * 7)  # 16 numbers each: 7 draws a block
    d = draws(model, guide, num_particles=25, by_site=by_site)
    torch.testing.assert_close(d.log_p, exact(d.values))
    assert d.log_w.shape == (25,)
    assert d.values["a"].unique(dim=0).shape == (25, 3)
    if by_site:
        prior = d.sites["sd"].log_p + d.sites["a"].log_p
        torch.testing.assert_close(d.log_prior, prior)
        assert d.sites["a"].elements == 3.0


@pytest.mark.parametrize("of", [model, broadcasting])
def test_the_first_draws_of_a_longer_run_are_those_of_a_shorter_one(of, monkeypatch):
    result = fit(of, AutoNormal(of), loss=ReverseKL(2), steps=2, progress=False)
    alone = result.draws(14, seed=5)
    of_four_numbers(monkeypatch, 112)
    short, long = result.draws(14, seed=5), result.draws(21, seed=5)
    assert not torch.equal(short.log_w, alone.log_w)  # two blocks are not one
    torch.testing.assert_close(short.log_w, long.log_w[:14], rtol=0.0, atol=0.0)
    sampled = result.sample(21, seed=5)
    for name, value in sampled.items():
        assert torch.equal(value, long.values[name])
    assert torch.equal(result.log_weights(21, seed=5), long.log_w)


def test_numbers_do_not_depend_on_blocks_that_hold_all_draws(monkeypatch):
    guide = AutoNormal(model)
    found = []
    for numbers in (2**22, 2**10):
        of_four_numbers(monkeypatch, numbers)
        pyro.set_rng_seed(1)
        found.append(draws(model, guide, num_particles=20).log_w)
    assert torch.equal(*found)


def test_no_run_holds_more_than_a_block(monkeypatch):
    largest = []

    def watched():
        sd = pyro.sample("sd", dist.HalfNormal(1.0))
        largest.append(sd.numel())
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(sd, 1.0), obs=X)

    guide = AutoNormal(watched)
    of_four_numbers(monkeypatch, 120)
    draws(watched, guide, num_particles=100)
    assert max(largest) <= max(8, 120 // 6)  # the survey takes 8 particles


def posterior_values(count):
    return {"sd": torch.rand(count) + 0.5, "a": torch.randn(count, 3)}


def test_a_model_that_does_not_broadcast_is_mapped_over_given_draws():
    calls = []
    at = ModelAt(model, (calls,), {}, ["sd", "a"])
    values = posterior_values(50)
    at.log_likelihood(values)
    at.log_joint(values)
    at.deterministic(values)
    calls.clear()
    found = at.log_likelihood(values)["x"]
    torch.testing.assert_close(found.log_prob, dist.Normal(values["a"][:, COUNTY], 1.0).log_prob(X))
    torch.testing.assert_close(at.log_joint(values), exact(values))
    torch.testing.assert_close(at.deterministic(values)["loc"], values["a"][:, COUNTY])
    assert len(calls) == 3


def test_mapped_predictions_have_noise_of_their_own():
    """Mean and standard deviation of 20000 draws within 4 standard errors; none is drawn twice."""
    calls = []
    at = ModelAt(model, (calls,), {}, ["sd", "a"])
    values = {"sd": torch.ones(20000), "a": torch.randn(20000, 3)}
    predict(at, {n: v[:4] for n, v in values.items()})
    calls.clear()
    noise = predict(at, values)["x"] - values["a"][:, COUNTY]
    assert len(calls) == 1
    assert noise.unique().numel() == 80000
    assert noise.mean(0).abs().max() < 4 / 20000**0.5
    assert (noise.std(0) - 1.0).abs().max() < 4 / 40000**0.5
    assert torch.corrcoef(noise.T).fill_diagonal_(0.0).abs().max() < 4 / 20000**0.5


def test_random_numbers_that_torch_cannot_map_are_drawn_one_by_one():
    def waiting():
        a = pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Geometric(a[COUNTY].sigmoid()), obs=torch.ones(4))

    at = ModelAt(waiting, (), {}, ["a"])
    values = {"a": torch.linspace(-1.0, 1.0, 3).expand(3000, 3)}
    found = predict(at, values)["x"]
    p = values["a"][0, COUNTY].sigmoid()
    error = ((1 - p) / p**2 / 3000).sqrt()
    assert ((found.mean(0) - (1 - p) / p).abs() < 4 * error).all()


def test_lean_torch_gives_the_same_numbers():
    scale, rows = torch.rand(200, 1), torch.randn(200, 7)
    index = torch.tensor([0, 6, -1, 3] * 50)

    def numbers():
        wide = scale.expand(200, 300)
        return [
            wide.log(),
            torch.where(wide > 0.5, wide, wide.exp()) + wide**2,
            wide - torch.ones(300),
            rows[:, index],
            rows[index],
            rows[index, index.clamp(min=0)],
            dist.Normal(rows[:, index].abs(), wide[:, :200]).log_prob(torch.ones(200)),
        ]

    with torch.no_grad(), Lean():
        found = numbers()
    for ours, theirs in zip(found, numbers(), strict=True):
        assert torch.equal(ours, theirs)
    assert found[0].stride() == (1, 0)


def test_an_index_out_of_range_is_that_of_torch():
    with torch.no_grad(), pytest.raises(NotMapped, match="IndexError: index 3 is out of bounds"):
        over_particles(lambda at: at["a"][COUNTY + 2], {"a": torch.randn(5, 3)})


def test_results_that_are_written_to_are_computed_in_full():
    def written(at):
        x = at["a"].expand(20000).exp()
        x[0] = 7.0
        return x

    a = torch.randn(3, 1)
    with torch.no_grad():
        found = over_particles(written, {"a": a})
    exact = a.exp().repeat(1, 20000)
    exact[:, 0] = 7.0
    assert torch.equal(found, exact)


def test_what_is_not_allowed_in_a_later_block_is_named_too(monkeypatch):
    def model():
        scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, scale), obs=torch.tensor(1.0))

    def guide():
        pyro.sample("scale", dist.Normal(2.0, 0.5))  # below zero in one draw of 30,000

    monkeypatch.setattr(blocks_of_draws, "NUMBERS", 1000)
    torch.manual_seed(0)
    assert bool((draws(model, guide, num_particles=400).values["scale"] > 0).all())
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="parameter scale .* of distribution Normal"):
        draws(model, guide, num_particles=500_000)
