"""Pointwise log-likelihoods and deterministic values, against closed forms and by hand."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex

from models import mixture_small
from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.at_values import ModelAt

X = torch.tensor([0.3, -1.2, 2.0, 0.7, 1.1], dtype=torch.float64)
PARALLEL = {"enumerate": "parallel"}


def normal(loc, x, scale=1.0):
    return dist.Normal(loc, scale).log_prob(x)


def means(x, size=None, scale=1.0, mask=None):
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
    pyro.factor("penalty", -mu.square())
    with pyro.plate("data", len(x), subsample_size=size) as rows:
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.deterministic("shifted", z + 1.0)
        keep = True if mask is None else mask[rows]
        with poutine.scale(scale=scale), poutine.mask(mask=keep):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[rows])


def mean_draws(count=6):
    return {"mu": torch.randn(count), "z": torch.randn(count, len(X))}


@pytest.mark.parametrize("size", [None, 2, 4, 1])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_likelihood_is_unscaled_and_of_the_full_data(size, scale):
    draws = mean_draws()
    at = ModelAt(means, (X, size, scale), {}, draws.keys())

    found = at.log_likelihood(draws)

    assert list(found) == ["x"]  # a factor is no likelihood
    torch.testing.assert_close(found["x"].log_prob, normal(draws["z"], X, 0.5))
    assert bool(found["x"].counts.all())
    assert found["x"].axes == {"data": -1}
    torch.testing.assert_close(at.deterministic(draws)["shifted"], draws["z"] + 1.0)
    assert torch.equal(at.observed()["x"], X)


def test_what_is_masked_out_is_no_datum():
    draws, mask = mean_draws(), torch.tensor([True, False, True, True, False])
    at = ModelAt(means, (X, 2, 1.0, mask), {}, draws.keys())

    found = at.log_likelihood(draws)["x"]

    assert torch.equal(found.counts, mask)
    torch.testing.assert_close(found.log_prob, normal(draws["z"], X, 0.5) * mask)
    assert torch.equal(at.observed()["x"].isnan(), ~mask)


def test_a_mask_inside_of_an_event_leaves_a_datum_until_nothing_is_left():
    keep = torch.tensor([[True, False], [True, True], [False, False]])

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample(
                "x",
                dist.Normal(z[..., None, None], 1.0).expand([3, 2]).mask(keep).to_event(1),
                obs=torch.ones(3, 2),
            )

    def broadcasting():
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("rows", 3):
            fn = dist.Normal(z.unsqueeze(-1), torch.ones(3, 2)).mask(keep).to_event(1)
            pyro.sample("x", fn, obs=torch.ones(3, 2))

    z = torch.tensor([0.0, 1.0, -2.0])
    for each in (model, broadcasting):
        found = ModelAt(each, (), {}, {"z"}).log_likelihood({"z": z})["x"]
        assert found.counts.tolist() == [True, True, False]
        expected = normal(z, torch.ones(()))[:, None] * keep.sum(1)
        torch.testing.assert_close(found.log_prob, expected)


def test_a_mask_that_depends_on_a_latent_value_is_refused():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with poutine.mask(mask=z > 0):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(()))

    at = ModelAt(model, (), {}, {"z"})
    with pytest.raises(UnsupportedStructure, match="mask of observed site 'x'"):
        at.log_likelihood({"z": torch.tensor([-1.0, 1.0])})


@pytest.mark.parametrize("size", [None, 3])
def test_a_mixture_is_summed_over_its_components(size):
    x = mixture_small.data()
    mu = torch.randn(7, 2)
    at = ModelAt(mixture_small.model, (x, size), {}, {"mu"})

    found = at.log_likelihood({"mu": mu})["x"].log_prob

    log_weights = torch.tensor(mixture_small.WEIGHTS).log()
    by_hand = torch.logsumexp(log_weights + normal(mu[:, None], x[:, None]), -1)
    torch.testing.assert_close(found, by_hand)


def test_two_mixtures_in_plates_of_their_own_stay_apart():
    weights = torch.tensor([0.3, 0.7])

    def model():
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        for name, data in (("a", X[:2]), ("b", X[2:])):
            with pyro.plate(f"plate_{name}", len(data)):
                c = pyro.sample(f"c_{name}", dist.Categorical(weights), infer=PARALLEL)
                pyro.sample(name, dist.Normal(Vindex(mu)[..., c], 1.0), obs=data)

    mu = torch.randn(4, 2)
    found = ModelAt(model, (), {}, {"mu"}).log_likelihood({"mu": mu})

    for name, data in (("a", X[:2]), ("b", X[2:])):
        by_hand = torch.logsumexp(weights.log() + normal(mu[:, None], data[:, None]), -1)
        torch.testing.assert_close(found[name].log_prob, by_hand)
        assert found[name].axes == {f"plate_{name}": -1}


TRANSITION = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
SERIES = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.1, 0.0], [-0.3, 0.4, 9.9]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 1, 0])


def hidden_markov(series, lengths):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("series", len(series)):
        state = torch.zeros((), dtype=torch.long)
        for t in pyro.markov(range(series.shape[1])):
            with poutine.mask(mask=t < lengths):
                state = pyro.sample(f"s_{t}", dist.Categorical(TRANSITION[state]), infer=PARALLEL)
                pyro.sample(f"y_{t}", dist.Normal(Vindex(loc)[..., state], 1.0), obs=series[:, t])


def paths(loc, length, series):
    """All paths of one series with their joint density, by enumeration."""
    for path in itertools.product(range(2), repeat=length):
        joint, before = torch.zeros(()), 0
        for t, state in enumerate(path):
            joint = joint + TRANSITION[before, state].log() + normal(loc[state], series[t])
            before = state
        yield path, joint


def test_a_hidden_markov_model_has_one_value_for_each_series():
    loc = torch.randn(5, 2)
    at = ModelAt(hidden_markov, (SERIES, LENGTHS), {}, {"loc"})

    ((name, found),) = at.log_likelihood({"loc": loc}).items()

    assert name == "y"
    assert found.counts.tolist() == [True, True, False]  # the last series is empty
    for s, n in itertools.product(range(5), range(3)):
        joints = torch.stack([j for _, j in paths(loc[s], int(LENGTHS[n]), SERIES[n])])
        torch.testing.assert_close(found.log_prob[s, n], joints.logsumexp(0))


def test_latents_and_factors_inside_of_a_sum_are_refused_by_name():
    def with_latent():
        with pyro.plate("data", 2):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer=PARALLEL)
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=X[:2])

    def with_factor():
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        c = pyro.sample("c", dist.Bernoulli(0.5), infer=PARALLEL)
        pyro.factor("penalty", -c)
        pyro.sample("x", dist.Normal(c, 1.0), obs=X[0])

    for model, shape, match in (
        (with_latent, (3, 2), "latent site 'z'"),
        (with_factor, (3,), "factor 'penalty'"),
    ):
        at = ModelAt(model, (), {}, {"z"})
        with pytest.raises(UnsupportedStructure, match=match):
            at.log_likelihood({"z": torch.zeros(shape)})


def test_a_model_that_does_not_broadcast_is_run_draw_by_draw():
    def model():
        with pyro.plate("data", len(X)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        total = pyro.deterministic("total", z.sum())
        pyro.deterministic("pair", torch.stack([z[0], z[1]]))
        pyro.sample("x", dist.Normal(total, 1.0), obs=X[0])

    z = torch.randn(8, len(X))
    at = ModelAt(model, (), {}, {"z"})

    torch.testing.assert_close(at.deterministic({"z": z})["total"], z.sum(1))
    torch.testing.assert_close(at.deterministic({"z": z})["pair"], z[:, :2])
    found = at.log_likelihood({"z": z})["x"].log_prob
    torch.testing.assert_close(found, normal(z.sum(1), X[0]))


def test_batch_dimensions_without_a_plate_are_kept():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(len(X)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    z = torch.randn(4, len(X))
    at = ModelAt(model, (), {}, {"z"})
    torch.testing.assert_close(at.log_likelihood({"z": z})["x"].log_prob, normal(z, X))
    joint = (normal(0.0, z) + normal(z, X)).sum(1)
    torch.testing.assert_close(at.log_joint({"z": z}), joint)


def test_the_joint_density_is_masked_scaled_and_summed():
    draws, mask = mean_draws(), torch.tensor([True, False, True, True, False])
    at = ModelAt(means, (X, None, 0.1, mask), {}, draws.keys())
    mu, z = draws["mu"], draws["z"]
    local = normal(mu[:, None], z) + 0.1 * mask * normal(z, X, 0.5)
    expected = normal(0.0, mu) - mu.square() + local.sum(1)
    torch.testing.assert_close(at.log_joint(draws), expected)
    with pytest.raises(UnsupportedStructure, match="plate 'data' draws minibatches"):
        ModelAt(means, (X, 2), {}, draws.keys()).log_joint(draws)


def test_draws_of_other_data_or_another_model_are_refused():
    with pytest.raises(InvalidArgument, match="no draws of latent site 'z'"):
        ModelAt(means, (X,), {}, {"mu"})
    at = ModelAt(means, (X[:3],), {}, {"mu", "z"})
    with pytest.raises(InvalidArgument, match=r"site 'z' have shape \(5,\).*shape \(3,\)"):
        at.log_likelihood(mean_draws())
