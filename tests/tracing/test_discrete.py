"""Enumerated sites given the others: exact probabilities, and draws that have them."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from models import mixture_small
from pyro_klmodes.tracing.at_values import ModelAt
from pyro_klmodes.tracing.discrete import marginals, sample_discrete

PARALLEL = {"enumerate": "parallel"}
TRANSITION = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
SERIES = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.1, 0.0]], dtype=torch.float64)


def hidden_markov(series, transition=TRANSITION, scale=1.0):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("series", len(series)), pyro.poutine.scale(scale=scale):
        state = torch.zeros((), dtype=torch.long)
        for t in pyro.markov(range(series.shape[1])):
            state = pyro.sample(f"s_{t}", dist.Categorical(transition[state]), infer=PARALLEL)
            pyro.sample(f"y_{t}", dist.Normal(Vindex(loc)[..., state], 1.0), obs=series[:, t])


def path_probabilities(loc, series, transition=TRANSITION):
    """The posterior of all paths of one series, by enumeration."""
    paths = list(itertools.product(range(2), repeat=len(series)))
    joint = torch.zeros(len(paths))
    for i, path in enumerate(paths):
        before = 0
        for state, y in zip(path, series, strict=True):
            joint[i] += transition[before, state].log() + dist.Normal(loc[state], 1.0).log_prob(y)
            before = state
    return torch.tensor(paths), joint.softmax(0)


@pytest.mark.parametrize("size", [None, 3])
def test_conditionals_of_a_mixture(size):
    x, mu = mixture_small.data(), torch.randn(6, 2)
    at = ModelAt(mixture_small.model, (x, size), {}, {"mu"})

    found = marginals(at, {"mu": mu})["assignment"]

    log_weights = torch.tensor(mixture_small.WEIGHTS).log()
    joint = log_weights + dist.Normal(mu[:, None], 1.0).log_prob(x[:, None])
    torch.testing.assert_close(found, joint.softmax(-1))


def test_averaged_over_the_exact_posterior_they_are_the_marginals():
    problem = mixture_small.problem()
    (x,) = problem.args
    count = 4000
    log_joint, means, sds = mixture_small.posterior_by_enumeration(x)
    components = dist.Normal(means, sds).to_event(1)
    mu = dist.MixtureSameFamily(dist.Categorical(logits=log_joint), components).sample((count,))
    at = ModelAt(problem.model, problem.args, {}, {"mu"})

    given = marginals(at, {"mu": mu})["assignment"]

    exact = mixture_small.assignment_probabilities(x)
    standard_error = given.std(0) / count**0.5
    assert bool(((given.mean(0) - exact).abs() < 4 * standard_error).all())
    drawn = sample_discrete(at, {"mu": mu})["assignment"]
    share = drawn.double().mean(0)
    binomial = (exact[:, 0] * exact[:, 1] / count).sqrt()
    assert bool(((share - exact[:, 1]).abs() < 4 * binomial).all())


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_smoothing_of_a_hidden_markov_model(scale):
    loc = torch.randn(4, 2)
    at = ModelAt(hidden_markov, (SERIES,), {"scale": scale}, {"loc"})

    found = marginals(at, {"loc": loc})

    for s, n in itertools.product(range(4), range(2)):
        paths, chance = path_probabilities(loc[s], SERIES[n])
        for t in range(3):
            expected = torch.stack([chance[paths[:, t] == k].sum() for k in range(2)])
            torch.testing.assert_close(found[f"s_{t}"][s, n], expected)


@pytest.mark.parametrize("size", [None, 1, 2])
def test_latents_below_an_enumerated_site_tell_about_it(size):
    count, x = 6000, torch.tensor([0.3, -0.8, 1.0])

    def model():
        with pyro.plate("data", 3, subsample_size=size) as rows:
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(2.0 * c, 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x[rows])

    z = torch.tensor([0.5, 1.5, 0.7])
    at = ModelAt(model, (), {}, {"z"})
    state = torch.arange(2.0)
    joint = dist.Bernoulli(0.3).log_prob(state) + dist.Normal(2 * state, 1.0).log_prob(z[:, None])
    joint = joint + dist.Normal(z[:, None] + state, 1.0).log_prob(x[:, None])
    exact = joint.softmax(-1)

    found = marginals(at, {"z": z.expand(2, 3)})["c"]
    torch.testing.assert_close(found, exact.expand(2, 3, 2))
    share = sample_discrete(at, {"z": z.expand(count, 3)})["c"].mean(0)
    assert bool(((share - exact[:, 1]).abs() < 4 * (exact.prod(-1) / count).sqrt()).all())


def test_paths_are_drawn_jointly():
    count = 8000
    loc = torch.tensor([-0.5, 0.8])
    at = ModelAt(hidden_markov, (SERIES,), {}, {"loc"})

    drawn = sample_discrete(at, {"loc": loc.expand(count, 2)})

    for n in range(2):
        paths, chance = path_probabilities(loc, SERIES[n])
        together = torch.stack([drawn[f"s_{t}"][:, n] for t in range(3)], dim=1)
        share = (together[:, None] == paths).all(-1).double().mean(0)
        assert bool(((share - chance).abs() < 4 * (chance * (1 - chance) / count).sqrt()).all())


def test_impossible_states_have_probability_zero_and_no_nan():
    barred = torch.tensor([[1.0, 0.0], [0.5, 0.5]])

    def model():
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        c = pyro.sample("c", dist.Categorical(barred[0]), infer=PARALLEL)
        d = pyro.sample("d", dist.Categorical(barred[c]), infer=PARALLEL)
        pyro.factor("bar", torch.where(d == 1, -torch.inf, 0.0))
        pyro.sample("x", dist.Normal(1.0 * d, 1.0), obs=torch.zeros(()))

    found = marginals(ModelAt(model, (), {}, {"z"}), {"z": torch.zeros(3)})

    for name in ("c", "d"):
        torch.testing.assert_close(found[name], torch.tensor([1.0, 0.0]).expand(3, 2))


def test_a_site_that_no_draw_touches_has_the_same_table_for_all():
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", 2):
            c = pyro.sample("c", dist.Bernoulli(0.25), infer=PARALLEL)
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * c), obs=torch.tensor([1.0, 0.0]))

    found = marginals(ModelAt(model, (), {}, {"z"}), {"z": torch.zeros(3)})["c"]

    one = torch.tensor([0.25 * 0.8 / (0.25 * 0.8 + 0.75 * 0.2), 0.25 * 0.2 / (0.05 + 0.75 * 0.8)])
    torch.testing.assert_close(found[..., 1], one.expand(3, 2))


def test_one_hot_values_are_drawn_with_what_depends_on_them():
    count = 6000

    def model():
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        fn = dist.OneHotCategorical(torch.tensor([0.3, 0.7]))
        with pyro.plate("data", 2):
            c = pyro.sample("c", fn, infer=PARALLEL)
            d = pyro.sample("d", dist.Bernoulli(0.2 + 0.5 * c[..., 1]), infer=PARALLEL)
            pyro.sample("x", dist.Normal(2.0 * d, 1.0), obs=torch.tensor([0.0, 1.5]))

    at = ModelAt(model, (), {}, {"z"})
    drawn = sample_discrete(at, {"z": torch.zeros(count)})

    assert drawn["c"].shape == (count, 2, 2)
    assert bool((drawn["c"].sum(-1) == 1).all())
    state = torch.arange(2.0)
    log_c = torch.tensor([0.3, 0.7]).log()[:, None]
    log_d = dist.Bernoulli(0.2 + 0.5 * state[:, None]).log_prob(state)
    for n, x in enumerate((0.0, 1.5)):
        joint = log_c + log_d + dist.Normal(2 * state, 1.0).log_prob(torch.tensor(x))
        chance = joint.flatten().softmax(0)
        cell = 2 * drawn["c"][:, n, 1] + drawn["d"][:, n]
        share = (cell[:, None] == torch.arange(4)).double().mean(0)
        assert bool(((share - chance).abs() < 4 * (chance * (1 - chance) / count).sqrt()).all())
