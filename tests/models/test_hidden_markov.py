"""Hidden Markov models: forward-backward against enumeration, Pyro and hmmlearn; Baum-Welch."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from pyro.infer import TraceEnum_ELBO

from models import hidden_markov as hmm
from models import hidden_markov_exact as exact
from models.hidden_markov import Discrete, Gaussian

LENGTHS = torch.tensor([5, 1, 3, 5])


def cases():
    """A model that is not the true one, and four short series, of both kinds."""
    discrete = Discrete(*(part[0] for part in exact.random_discrete(2, 3, starts=1, seed=4)))
    x, _ = hmm.simulate_discrete(4, 5, seed=2)
    yield discrete, x
    x, _ = hmm.simulate_gaussian(4, 5, seed=2)
    yield Gaussian(*(part[0] for part in exact.random_gaussian(x, 3, starts=1, seed=4))), x


CASES = ["discrete", "gaussian"]


def case(name):
    torch.set_default_dtype(torch.float64)
    return dict(zip(CASES, cases(), strict=True))[name]


def by_enumeration(at, x, lengths):
    """Log-likelihood, marginals and pairs of every series by a sum over all paths of states."""
    emitted = exact.log_emission(at, x)
    states, steps = len(at.initial), x.shape[1]
    for s, length in enumerate(lengths.tolist()):
        joint, paths = [], list(itertools.product(range(states), repeat=length))
        for path in paths:
            value = float(at.initial[path[0]].log())
            value += sum(float(at.transition[i, j].log()) for i, j in itertools.pairwise(path))
            joint.append(value + sum(float(emitted[s, t, k]) for t, k in enumerate(path)))
        total = np.logaddexp.reduce(joint)
        marginals, pairs = np.zeros((steps, states)), np.zeros((steps - 1, states, states))
        for path, value in zip(paths, joint, strict=True):
            for t, k in enumerate(path):
                marginals[t, k] += math.exp(value - total)
            for t, (i, j) in enumerate(itertools.pairwise(path)):
                pairs[t, i, j] += math.exp(value - total)
        yield total, marginals, pairs


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_forward_backward_is_the_sum_over_all_paths(name, lengths):
    at, x = case(name)
    found = exact.forward_backward(at, x, lengths)
    ends = torch.full((4,), 5) if lengths is None else lengths
    for s, (total, marginals, pairs) in enumerate(by_enumeration(at, x, ends)):
        assert float(found.log_likelihood[s]) == pytest.approx(total, abs=1e-10)
        np.testing.assert_allclose(found.marginals[s].numpy(), marginals, atol=1e-12)
        np.testing.assert_allclose(found.pairs[s].numpy(), pairs, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_models_come_in_batches(name):
    _, x = case(name)
    if name == "discrete":
        batch, step = exact.random_discrete(3, 3, starts=4), exact.discrete_step
    else:
        batch, step = exact.random_gaussian(x, 2, starts=4), exact.gaussian_step
    after, before = step(batch, x, LENGTHS)
    together = exact.forward_backward(batch, x, LENGTHS)
    for i in range(4):
        one = type(batch)(*(part[i] for part in batch))
        alone = exact.forward_backward(one, x, LENGTHS)
        torch.testing.assert_close(together.pairs[i], alone.pairs)
        after_one, before_one = step(one, x, LENGTHS)
        torch.testing.assert_close(before[i], before_one)
        for found, expected in zip(after, after_one, strict=True):
            torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_the_model_is_the_same_likelihood(name, lengths):
    _, x = case(name)
    model = hmm.discrete_model if name == "discrete" else hmm.gaussian_model
    kind = Discrete if name == "discrete" else Gaussian
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    store = pyro.get_param_store()
    values = []
    for _ in range(2):
        found = -elbo.loss(model, lambda *_, **__: None, x, lengths=lengths)
        with torch.no_grad():
            at = kind(*(store[field] for field in kind._fields))
            expected = float(exact.forward_backward(at, x, lengths).log_likelihood.sum())
            for _, free in store.named_parameters():
                free.add_(0.3 * torch.randn_like(free))
        assert found == pytest.approx(expected, rel=1e-10)
        values.append(expected)
    assert abs(values[1] - values[0]) > 0.01


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_hmmlearn(name):
    lengths = torch.tensor([30, 12, 1, 25])
    if name == "discrete":
        x, _ = hmm.simulate_discrete(4, 30)
        at = Discrete(*(part[0] for part in exact.random_discrete(2, 3, starts=1)))
        after, before = exact.discrete_step(at, x, lengths)
        theirs = CategoricalHMM(n_components=2, n_iter=1, init_params="", n_features=3)
        theirs.emissionprob_ = at.emission.numpy()
    else:
        x, _ = hmm.simulate_gaussian(4, 30)
        at = Gaussian(*(part[0] for part in exact.random_gaussian(x, 3, starts=1)))
        after, before = exact.gaussian_step(at, x, lengths)
        theirs = GaussianHMM(n_components=3, n_iter=1, init_params="", covars_prior=0.0)
        theirs.means_, theirs.covars_ = at.locs.numpy(), at.scales.square().numpy()
    theirs.startprob_, theirs.transmat_ = at.initial.numpy(), at.transition.numpy()
    rows = [row[:length] for row, length in zip(x.numpy(), lengths, strict=True)]
    stacked = np.concatenate(rows)
    stacked = stacked[:, None] if stacked.ndim == 1 else stacked
    total, posteriors = theirs.score_samples(stacked, lengths.tolist())
    assert float(before) == pytest.approx(total, rel=1e-9)
    marginals = exact.forward_backward(at, x, lengths).marginals
    ours = np.concatenate([m[:n] for m, n in zip(marginals.numpy(), lengths, strict=True)])
    np.testing.assert_allclose(ours, posteriors, atol=1e-9)

    theirs.fit(stacked, lengths.tolist())
    np.testing.assert_allclose(after.initial.numpy(), theirs.startprob_, rtol=1e-8)
    np.testing.assert_allclose(after.transition.numpy(), theirs.transmat_, rtol=1e-8)
    if name == "discrete":
        np.testing.assert_allclose(after.emission.numpy(), theirs.emissionprob_, rtol=1e-8)
    else:
        np.testing.assert_allclose(after.locs.numpy(), theirs.means_, rtol=1e-8)
        variances = theirs.covars_.diagonal(axis1=-2, axis2=-1)
        np.testing.assert_allclose(after.scales.square().numpy(), variances, rtol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_the_likelihood_rises_from_every_start(name):
    if name == "discrete":
        x, _ = hmm.simulate_discrete(6, 15)
        at, step = exact.random_discrete(2, 3, starts=20), exact.discrete_step
    else:
        x, _ = hmm.simulate_gaussian(6, 15)
        at, step = exact.random_gaussian(x, 3, starts=20), exact.gaussian_step
    values = []
    for _ in range(15):
        at, before = step(at, x)
        values.append(before)
    rises = torch.stack(values).diff(dim=0)
    assert rises.min() > -1e-9
    assert rises[0].min() > 0.01


def test_a_step_is_the_best_answer_to_its_responsibilities():
    """The gradient of the expected complete-data log-likelihood is zero at it, by logits."""
    x, _ = hmm.simulate_gaussian(5, 12)
    at = Gaussian(*(part[0] for part in exact.random_gaussian(x, 3, starts=1)))
    smoothed = exact.forward_backward(at, x)
    after, _ = exact.gaussian_step(at, x)

    def largest_gradient(point):
        leaves = [
            part.detach().clone().requires_grad_()
            for part in (
                *(point.initial.log(), point.transition.log()),
                *(point.locs, point.scales.log()),
            )
        ]
        moved = Gaussian(leaves[0].softmax(-1), leaves[1].softmax(-1), leaves[2], leaves[3].exp())
        expected = (
            (smoothed.marginals[:, 0] * moved.initial.log()).sum()
            + (smoothed.pairs * moved.transition.log()).sum()
            + (smoothed.marginals * exact.log_emission(moved, x)).sum()
        )
        return max(float(g.abs().max()) for g in torch.autograd.grad(expected, leaves))

    assert largest_gradient(after) < 1e-9
    assert largest_gradient(at) > 1


def test_simulated_data_have_the_frequencies_of_their_parameters():
    x, z = hmm.simulate_discrete(4000, 8)
    truth = hmm.true_discrete()
    first = torch.nn.functional.one_hot(z[:, 0]).double().mean(0)
    sd = (truth.initial * (1 - truth.initial) / 4000).sqrt()
    assert ((first - truth.initial).abs() < 4 * sd).all()
    for i in range(2):
        left, symbols = z[:, 1:][z[:, :-1] == i], x[z == i]
        for values, expected in ((left, truth.transition[i]), (symbols, truth.emission[i])):
            found = values.bincount().double() / len(values)
            sd = (expected * (1 - expected) / len(values)).sqrt()
            assert ((found - expected).abs() < 4 * sd).all()

    y, z = hmm.simulate_gaussian(2000, 6)
    truth = hmm.true_gaussian()
    for k in range(3):
        points = y[z == k]
        standard = (points - truth.locs[k]) / truth.scales[k]
        assert (standard.mean(0).abs() < 4 / math.sqrt(len(points))).all()
        assert ((standard.var(0) - 1).abs() < 4 * math.sqrt(2 / len(points))).all()
    assert torch.equal(hmm.simulate_gaussian(3, 4)[0], hmm.simulate_gaussian(3, 4)[0])


def test_many_data_lead_back_to_the_truth():
    """Within five standard errors of the multinomials with known states, from a start far off."""
    x, _ = hmm.simulate_gaussian(100, 60, seed=1)
    truth = hmm.true_gaussian()
    at = Gaussian(
        torch.full((3,), 1 / 3), torch.full((3, 3), 1 / 3), 0.3 * truth.locs, torch.ones(3, 2) * 2
    )
    start = at
    for _ in range(60):
        at, _ = exact.gaussian_step(at, x)
    states = 6000 / 3
    allowed = 5 * math.sqrt(0.25 / states)
    assert (start.transition - truth.transition).abs().max() > 5 * allowed
    assert (at.transition - truth.transition).abs().max() < allowed
    assert (start.locs - truth.locs).abs().max() > 5 * (5 / math.sqrt(states))
    assert (at.locs - truth.locs).abs().max() < 5 / math.sqrt(states)
    assert (at.scales - truth.scales).abs().max() < 5 / math.sqrt(2 * states)
