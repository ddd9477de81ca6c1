"""Fits by EM that were wrong without a word: masks, roles, kinks, gates, and batches."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints

from pyro_klmodes.errors import NonFiniteLoss, UnsupportedStructure
from pyro_klmodes.inference.batches import by_index
from pyro_klmodes.inference.em import EM, CoordinateAscent, StepSizes
from pyro_klmodes.inference.em.optimise import LBFGS


def data(size=40):
    generator = torch.Generator().manual_seed(1)
    z = torch.rand(size, generator=generator) < 0.5
    return torch.randn(size, generator=generator) + torch.where(z, 2.0, -2.0)


def missing(size=40):
    return torch.rand(size, generator=torch.Generator().manual_seed(2)) < 0.3


def parameters():
    weights = pyro.param("weights", torch.tensor([0.4, 0.6]), constraints.simplex)
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    scale = pyro.param("scale", torch.tensor([1.0, 1.5]), constraints.positive)
    return weights, loc, scale


def mixture(x):
    weights, loc, scale = parameters()
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def log_likelihood(x, params):
    joint = dist.Normal(params["loc"], params["scale"]).log_prob(x[:, None])
    return (joint + params["weights"].log()).logsumexp(-1).sum()


def test_the_mask_of_a_distribution_leaves_data_out_of_the_statistics():
    def masked(x, keep):
        weights, loc, scale = parameters()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], scale[z]).mask(keep), obs=x)

    x, keep = data(), ~missing()
    result, without = EM(masked).fit(x, keep), EM(mixture).fit(x[keep])

    assert result.closed_form == without.closed_form == ("weights", "loc", "scale")
    for name, value in without.params.items():
        torch.testing.assert_close(result.params[name], value, atol=1e-4, rtol=0)
    assert result.log_likelihood == pytest.approx(without.log_likelihood, abs=1e-8)


def test_the_mask_of_a_distribution_leaves_priors_out():
    keep = torch.tensor([[True, False], [True, True]])

    def model(x):
        with pyro.plate("components", 2):
            prior = dist.Normal(torch.zeros(2, 2), 0.1).mask(keep).to_event(1)
            loc = pyro.sample("loc", prior)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])), obs=labels)
            pyro.sample("x", dist.MultivariateNormal(loc[z], torch.eye(2)), obs=x)

    x, labels = data(20).reshape(10, 2), torch.arange(10) % 2
    result = EM(model, points=["loc"]).fit(x)

    total, precision = torch.stack([x[0::2].sum(0), x[1::2].sum(0)]), 100.0 * keep
    torch.testing.assert_close(result.params["loc"], total / (5 + precision))


def test_nan_data_that_are_masked_stop_the_optimizer_loudly():
    def model(x, keep):
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("x", dist.Normal(2 * loc, 1.0, validate_args=False), obs=x)

    x, keep = data(), ~missing()
    result = EM(model).fit(x, keep)
    assert float(result.params["loc"]) == pytest.approx(float(x[keep].mean()) / 2, abs=1e-5)
    with pytest.raises(NonFiniteLoss, match="not a number in 'loc'"):
        EM(model).fit(torch.where(keep, x, math.nan), keep)


def test_nan_data_that_are_masked_do_not_count_in_a_beta():
    def model(x, keep):
        first = pyro.param("first", torch.tensor(1.5), constraints.positive)
        second = pyro.param("second", torch.tensor(1.0), constraints.positive)
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("x", dist.Beta(first, second, validate_args=False), obs=x)

    x, keep = data().sigmoid(), ~missing()
    result = EM(model).fit(torch.where(keep, x, math.nan), keep)
    expected = EM(model).fit(x[keep], torch.tensor(True))
    for name, value in expected.params.items():
        torch.testing.assert_close(result.params[name], value)


def test_a_penalty_on_several_parameters_is_maximised_too():
    def model(x):
        weights, loc, scale = parameters()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)
        pyro.factor("penalty", -3 * (loc[0] - loc[1] + 3).square())

    x = data()
    result = EM(model).fit(x, steps=2000, tolerance=1e-9)

    loc = result.params["loc"].clone().requires_grad_()
    joint = log_likelihood(x, {**result.params, "loc": loc})
    joint = joint - 3 * (loc[0] - loc[1] + 3).square()
    (slope,) = torch.autograd.grad(joint, loc)
    assert float(slope.abs().max()) < 1e-4
    assert result.log_likelihood == pytest.approx(float(joint.detach()), abs=1e-8)


def test_a_parameter_that_is_a_variance_here_and_a_scale_there_has_no_closed_form():
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(0.0))
        size = pyro.param("size", torch.tensor(4.0), constraints.positive)
        with pyro.plate("first", len(x)):
            pyro.sample("x", dist.Normal(loc, size), obs=x)
        with pyro.plate("second", len(y)):
            pyro.sample("y", dist.Normal(loc, size.sqrt()), obs=y)

    x, y = data(), 1 + 0.3 * data(20)
    result = EM(model).fit(x, y, steps=2000, tolerance=1e-9)

    at = {n: v.clone().requires_grad_() for n, v in result.params.items()}
    joint = dist.Normal(at["loc"], at["size"]).log_prob(x).sum()
    joint = joint + dist.Normal(at["loc"], at["size"].sqrt()).log_prob(y).sum()
    slopes = torch.autograd.grad(joint, list(at.values()))
    assert max(float(s.abs()) for s in slopes) < 1e-4
    assert result.closed_form == ()
    assert "of another kind" in result.optimised["loc"]
    assert "variance of a Normal" in result.optimised["size"]


def test_what_depends_on_a_parameter_at_some_values_only_is_seen():
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(1.0))
        with pyro.plate("first", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
        with pyro.plate("second", len(y)):
            pyro.sample("y", dist.Normal((loc - 3).relu(), 1.0), obs=y)

    x, y = data() + 7, data(20)
    result = EM(model).fit(x, y)
    expected = (x.sum() + (y + 3).sum()) / 60  # both are linear there
    assert float(result.params["loc"]) == pytest.approx(float(expected), abs=1e-6)
    assert abs(float(x.mean() - expected)) > 0.5
    assert "at some values only" in result.optimised["loc"]


def test_the_absolute_value_of_a_parameter_is_no_selection():
    def model(x):
        root = pyro.param("root", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(root.abs(), 1.0), obs=x)

    x = data() - 5
    result = EM(model).fit(x)
    assert result.closed_form == ()
    assert abs(float(result.params["root"])) < 1e-3  # the mean of x is far below zero


@pytest.mark.parametrize("mark", [{"enumerate": "sequential"}, {"num_samples": 3}])
def test_marks_for_other_algorithms_do_not_matter(mark):
    def marked(x):
        weights, loc, scale = parameters()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel", **mark})
            pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    result, expected = EM(marked).fit(data()), EM(mixture).fit(data())
    assert result.log_likelihood == expected.log_likelihood


def test_a_start_that_is_impossible_does_not_hold_the_others():
    def model(x):
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            # nothing but 0 is left of the scale far away
            pyro.sample("x", dist.Laplace(loc[z], (-loc[z].square()).exp(), False), obs=x)

    starts = {"loc": torch.tensor([[-1.0, 1.0], [1e3, 1e3]])}
    once = LBFGS(steps=5)
    both = EM(model, starts=starts, optimizer=once).fit(data(), steps=1)
    alone = EM(model, starts={"loc": starts["loc"][:1]}, optimizer=once).fit(data(), steps=1)
    assert both.log_likelihood == alone.log_likelihood
    both = EM(model, starts=starts, optimizer=once).fit(data(), steps=3)
    alone = EM(model, starts={"loc": starts["loc"][:1]}, optimizer=once).fit(data(), steps=3)
    torch.testing.assert_close(both.params["loc"], alone.params["loc"])
    assert both.log_likelihood > -float(both.losses[0])


def grouped(x, group):
    loc = pyro.param("loc", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc[group], 1.0), obs=x)


def chain(x):
    transition = pyro.param("transition", torch.full((2, 2), 0.5), constraints.simplex)
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("series", len(x)):
        z = 0
        for t in pyro.markov(range(x.shape[1])):
            z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]))
            pyro.sample(f"x_{t}", dist.Normal(loc[z], 1.0), obs=x[:, t])


def with_prior(x):
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-0.5, 0.5]), 0.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def shared(x):
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("groups", 4):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "points", "batches", "words"),
    [
        (grouped, [], [(data(8), torch.arange(8) % 3), (data(8), torch.arange(8) % 2)], "'x' sel"),
        (chain, [], [(data(6).reshape(3, 2),), (data(9).reshape(3, 3),)], "not in the first batch"),
        (with_prior, ["loc"], list(data().split(10)), "'loc' is in no plate"),
        (shared, [], list(data().reshape(10, 4).split(5)), "'z' is in no plate"),
    ],
)
def test_what_batches_would_count_wrongly_is_refused(model, points, batches, words):
    with pytest.raises(UnsupportedStructure, match=words):
        EM(model, points=points).fit(batches=batches)


def test_series_of_different_lengths_go_together_if_the_longest_come_first():
    long, short = data(12).reshape(3, 4), data(6).reshape(3, 2)
    result = EM(chain).fit(batches=[(long,), (short,)], steps=20)

    def forward(x):
        alpha = torch.tensor([0.0, -math.inf]).expand(len(x), 2)
        for t in range(x.shape[1]):
            moved = (alpha[:, :, None] + result.params["transition"].log()).logsumexp(1)
            alpha = moved + dist.Normal(result.params["loc"], 1.0).log_prob(x[:, t, None])
        return float(alpha.logsumexp(-1).sum())

    assert result.log_likelihood == pytest.approx(forward(long) + forward(short), abs=1e-9)


@pytest.mark.parametrize("indices", [False, True])
def test_a_short_last_batch_counts_for_what_it_holds(indices):
    def model(x, subsample=None):
        weights = pyro.param("weights", torch.tensor([0.5, 0.5]), constraints.simplex)
        loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x), subsample=subsample) as i:
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x[i])

    x = torch.cat([data(), torch.tensor([6.0])])
    online = EM(model, online=StepSizes(power=1.0))
    expected = EM(model).fit(x, tolerance=1e-8)
    if indices:
        parts = by_index([part.tolist() for part in torch.arange(41).split(20)])
        result = online.fit(x, batches=parts, epochs=60)
    else:
        result = online.fit(batches=list(x.split(20)), epochs=60)

    # with a third of all weight the last datum would move the second mean by more than one
    for name, value in expected.params.items():
        torch.testing.assert_close(result.params[name], value, atol=0.02, rtol=0)
    direct = log_likelihood(x, {**result.params, "scale": torch.ones(2)})
    assert result.log_likelihood == pytest.approx(float(direct), abs=1e-8)


@pytest.mark.parametrize("e_step", [None, CoordinateAscent()], ids=["exact", "coordinate ascent"])
def test_models_that_take_minibatches_by_themselves_are_refused(e_step):
    def model(x):
        weights, loc, scale = parameters()
        with pyro.plate("data", len(x), subsample_size=10) as i:
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x[i])

    with pytest.raises(UnsupportedStructure, match="subsampled plate 'data'"):
        EM(model, e_step=e_step).fit(data())


def test_an_entry_per_datum_and_minibatches_are_refused():
    def model(x, subsample=None):
        with pyro.plate("data", len(x), subsample=subsample) as i:
            loc = pyro.param("loc", torch.zeros(len(x)), event_dim=0)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[i])

    with pytest.raises(UnsupportedStructure, match="'loc' has an entry for every datum"):
        EM(model, online=StepSizes()).fit(data(), batches=by_index([[0, 1], [2, 3]]))
