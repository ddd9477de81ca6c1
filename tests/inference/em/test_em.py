"""EM as a whole: published numbers, monotone steps, identities, and what it leaves behind."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.nn import PyroModule, PyroParam
from torch.distributions import constraints

from models import gaussian_mixture, mixed_poisson
from pyro_klmodes.inference.acceleration import Anderson, Squarem
from pyro_klmodes.inference.em import EM, KMeansPlusPlus, RandomStarts
from pyro_klmodes.inference.em.exact import Exact
from pyro_klmodes.inference.em.optimise import expected_log_joint
from pyro_klmodes.inference.em.parameters import parameters_of

RATIO = 5  # how much further off than the tolerance a start has to be


@pytest.mark.parametrize("acceleration", [Squarem(), Anderson()], ids=repr)
def test_hasselblads_counts_are_fitted_as_published(acceleration):
    result = EM(mixed_poisson.model, acceleration=acceleration).fit(
        mixed_poisson.data(), steps=4000, tolerance=1e-8
    )

    rates, order = result.params["rates"].sort(descending=True)
    found = torch.cat([result.params["weights"][order[:1]], rates])
    torch.testing.assert_close(found, torch.tensor(mixed_poisson.MAXIMUM), atol=1e-5, rtol=0)
    assert result.log_likelihood == pytest.approx(mixed_poisson.MAX_LOG_LIKELIHOOD, abs=1e-5)
    assert -result.losses[0] < mixed_poisson.MAX_LOG_LIKELIHOOD - RATIO * 1e-5
    assert result.closed_form == ("weights", "rates")


class Mixture(PyroModule):
    """A mixture of exponentials whose parameters are those of a module."""

    def __init__(self):
        super().__init__()
        self.weights = PyroParam(torch.tensor([0.5, 0.5]), constraints.simplex)
        self.rates = PyroParam(torch.tensor([0.5, 2.0]), constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(self.weights))
            pyro.sample("x", dist.Exponential(self.rates[z]), obs=x)


@pytest.mark.parametrize("local", [False, True])
def test_parameters_of_a_module_are_fitted_in_place(local):
    x = torch.cat([dist.Exponential(0.2).sample((60,)), dist.Exponential(5.0).sample((40,))])
    with pyro.settings.context(module_local_params=local):
        model = Mixture()
        result = EM(model).fit(x, steps=300)

        torch.testing.assert_close(model.rates.detach(), result.params["rates"])
    density = dist.MixtureSameFamily(
        dist.Categorical(result.params["weights"]), dist.Exponential(result.params["rates"])
    )
    assert float(density.log_prob(x).sum()) == pytest.approx(result.log_likelihood, rel=1e-12)
    assert len(pyro.get_param_store()) == 0


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(8, 40),
    components=st.integers(1, 4),
    dims=st.integers(1, 3),
)
def test_no_step_lowers_the_likelihood(seed, size, components, dims):
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    x = 3 * torch.randn(size, dims) * torch.rand(dims) + torch.randint(3, (size, 1))

    result = EM(gaussian_mixture.model, starts=RandomStarts(4), floor=1e-3).fit(
        x, components=components, kind="diagonal", steps=15, seed=seed
    )

    kept = [start for start in range(4) if start not in result.restarts.faults]
    history = result.restarts.history[:, kept]
    assert history.diff(dim=0).min() > -1e-9 * history.abs().max()
    assert (history[-1] - history[0]).max() > 0


def test_the_free_energy_after_an_exact_e_step_is_the_log_likelihood():
    """log p(x) = E_q[log p(x, z)] + H(q) + KL(q | p(z | x)), with KL = 0 for the exact q only."""
    x = gaussian_mixture.old_faithful_data()
    parameters = parameters_of(gaussian_mixture.model, (x,), {}, ())
    values = {n: v[None] for n, v in parameters.initial().items()}
    running = Exact().start(gaussian_mixture.model, (x,), {}, parameters)

    expected = running.expect(values)

    posterior = expected.weights["z"][0]  # (K, N)
    torch.testing.assert_close(posterior, expected.weights["x"][0])
    log_joint = gaussian_mixture.log_joint(gaussian_mixture.mixture(parameters.initial()), x).T
    evidence = float(expected.bound)
    energy = float(expected_log_joint(expected, values)) - float(
        torch.xlogy(posterior, posterior).sum()
    )
    assert energy == pytest.approx(evidence, abs=1e-8)
    # a restricted E-step: every datum in one component only, as in k-means
    hard = torch.nn.functional.one_hot(posterior.argmax(0), 2).T.to(posterior)
    gap = evidence - float(torch.where(hard > 0, log_joint, 0.0).sum())
    divergence = -float(posterior.amax(0).log().sum())
    assert gap == pytest.approx(divergence, abs=1e-8)
    print(f"gap of the hard E-step: {gap:.3f} nats")
    assert gap > 1


def initial_values(x, count=1, noise=0.0):
    """The model's own start, moved in its means."""
    first = parameters_of(gaussian_mixture.model, (x,), {}, ()).initial()
    values = {n: v.expand(count, *v.shape).clone() for n, v in first.items()}
    values["locs"] += noise * torch.randn_like(values["locs"])
    return values


def test_starts_are_independent_of_each_other():
    x = gaussian_mixture.old_faithful_data()
    starts = initial_values(x, count=4, noise=0.5)
    many = EM(gaussian_mixture.model, starts=starts).fit(x, steps=30)

    alone = EM(gaussian_mixture.model, starts={n: v[2:3] for n, v in starts.items()}).fit(
        x, steps=30
    )

    torch.testing.assert_close(
        many.restarts.history[: len(alone.losses), 2], -alone.losses, rtol=1e-12, atol=0
    )


def test_batches_give_the_steps_of_all_data():
    x = gaussian_mixture.old_faithful_data()
    whole = EM(gaussian_mixture.model).fit(x, steps=8)
    parts = EM(gaussian_mixture.model, starts=initial_values(x)).fit(
        batches=list(x.split(100)), steps=8
    )

    torch.testing.assert_close(parts.losses, whole.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.params, whole.params, rtol=1e-9, atol=1e-12)


def test_k_means_plus_plus_starts_in_the_clusters():
    centres = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])
    x = (centres[:, None] + torch.randn(4, 25, 2)).reshape(-1, 2)

    result = EM(gaussian_mixture.model, starts=KMeansPlusPlus(3)).fit(
        x, components=4, kind="spherical", steps=60
    )

    for locs in result.restarts.params["locs"]:
        assert torch.cdist(centres, locs).amin(1).max() < 1
    assert result.restarts.history[0].min() > result.log_likelihood - 25


def test_posterior_modes_take_priors_into_account():
    x = torch.tensor([0.0, 1.0, 1.0, 1.0])

    def model(x):
        chance = pyro.sample("chance", dist.Beta(3.0, 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(chance), obs=x)

    result = EM(model, points=["chance"]).fit(x)

    assert result.closed_form == ("chance",)
    assert float(result.params["chance"]) == pytest.approx((3 + 2) / (4 + 4), abs=1e-12)
    assert (result.sample(3)["chance"] == result.params["chance"]).all()


def test_an_optimizer_moves_what_has_no_closed_form():
    x = torch.cat([torch.randn(80) * 2, torch.randn(40) * 0.5 + 6])

    def model(x, direct):
        weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraints.simplex)
        scales = pyro.param("scales", torch.ones(2), constraints.positive)
        if direct:
            locs = pyro.param("locs", torch.tensor([-1.0, 4.0]))
        else:
            line = pyro.param("line", torch.tensor([-1.0, 5.0]))
            locs = torch.stack([line[0], line[0] + line[1]])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[z], scales[z]), obs=x)

    closed = EM(model).fit(x, direct=True, steps=200, tolerance=1e-9)
    searched = EM(model).fit(x, direct=False, steps=200, tolerance=1e-9)

    assert closed.closed_form == ("weights", "scales", "locs")
    assert "weights" in searched.closed_form
    assert "line" in searched.optimised
    assert searched.log_likelihood == pytest.approx(closed.log_likelihood, rel=1e-9)
    torch.testing.assert_close(
        searched.params["line"].cumsum(0), closed.params["locs"], rtol=1e-5, atol=0
    )
    assert closed.log_likelihood + searched.losses[0] > RATIO * 1e-9 * abs(closed.log_likelihood)
