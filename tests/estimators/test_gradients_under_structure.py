"""Gradients where scales, masks, empty groups and changing guides act on them, by enumeration."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes import IWAE, ForwardKL, Renyi, ReverseKL, TailAdaptive, estimators
from pyro_klmodes.errors import (
    IncompatibleEstimator,
    InvalidArgument,
    KLModesWarning,
    UnsupportedStructure,
)
from pyro_klmodes.testing import assert_same_mean, gradient_samples

BETA = 0.25


def annealed_model():
    with poutine.scale(scale=BETA):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.5))


def annealed_guide():
    with poutine.scale(scale=BETA):
        pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.2)), 0.7))


@pytest.mark.parametrize("make", [IWAE, lambda *a, **kw: Renyi(0.5, *a, **kw)])
def test_path_only_gradients_are_refused_where_the_guide_is_tempered(make):
    annealed_guide()
    with pytest.raises(IncompatibleEstimator, match="guide site 'z' has a poutine.scale"):
        make(4, estimator=estimators.doubly).loss_and_grads(annealed_model, annealed_guide)
    pathwise, score = (
        gradient_samples(
            make(4, 200, estimator=e), annealed_model, annealed_guide, repetitions=100, seed=seed
        )
        for seed, e in enumerate((estimators.pathwise, estimators.score))
    )
    assert pathwise.mean().abs() > 1e-2
    assert_same_mean(pathwise, score)


def test_path_only_gradients_of_a_linear_objective_allow_any_scale():
    annealed_guide()
    doubly, pathwise = (
        gradient_samples(
            ReverseKL(800, estimator=e), annealed_model, annealed_guide, repetitions=100, seed=seed
        )
        for seed, e in enumerate((estimators.doubly, estimators.pathwise))
    )
    assert pathwise.mean().abs() > 1e-2
    assert_same_mean(doubly, pathwise)


@pytest.mark.parametrize("estimator", [estimators.score, estimators.doubly, estimators.pathwise])
def test_a_defensive_proposal_has_neither_path_nor_score(estimator):
    with pytest.raises(InvalidArgument, match=r"defensive=0.1"):
        ForwardKL(8, defensive=0.1, estimator=estimator)


# --- a state that is impossible under the model: some groups of draws have no weight at all


def three_state_model():
    z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.5, 0.2])))
    pyro.factor("impossible", torch.where(z == 2, -torch.inf, 0.0))
    pyro.sample("x", dist.Normal(z.to(torch.get_default_dtype()), 1.0), obs=torch.tensor(0.4))


def three_state_guide():
    logits = pyro.param("logits", torch.tensor([0.2, 0.2, 0.6]).log())
    pyro.sample("z", dist.Categorical(logits=logits))


def exact_gradient_with_empty_groups(objective, K=2):
    """The wake or path gradient over all 3^K draws; a group without weight gives none."""
    logits = torch.tensor([0.2, 0.2, 0.6]).log().requires_grad_()
    z = torch.tensor(list(itertools.product(range(3), repeat=K))).T
    log_q = dist.Categorical(logits=logits).log_prob(z)
    log_p = dist.Categorical(torch.tensor([0.3, 0.5, 0.2])).log_prob(z)
    log_p = torch.where(z == 2, torch.tensor(-torch.inf), log_p)
    log_p = log_p + dist.Normal(z.double(), 1.0).log_prob(torch.tensor(0.4))
    log_w = (log_p - log_q).detach()
    alive = ~torch.isneginf(log_w).all(0)
    probability = log_q.sum(0).exp().detach() * alive
    target = (probability * -(objective.credit(log_w) * log_q).sum(0)).sum()
    return torch.autograd.grad(target, logits)[0]


@pytest.mark.parametrize("outer", [1, 50])
def test_groups_without_weight_give_no_gradient_whatever_the_number_of_groups(outer):
    three_state_guide()
    loss = ForwardKL(2, num_outer=outer)
    with pytest.warns(KLModesWarning, match="weight zero"):
        samples = gradient_samples(
            loss, three_state_model, three_state_guide, repetitions=3000 // outer, seed=2
        )
    exact = exact_gradient_with_empty_groups(loss.objective)
    assert exact.abs().max() > 0.1
    assert_same_mean(samples, exact)


# --- a draw that a mask takes out of the weights still decides what the likelihood sees


def masked_model():
    with poutine.mask(mask=False):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
    pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=torch.tensor(1.7))


def masked_guide():
    with poutine.mask(mask=False):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3))))


@pytest.mark.parametrize("estimator", [estimators.auto, estimators.score])
def test_a_masked_guide_site_keeps_its_score(estimator):
    masked_guide()
    logit = torch.tensor(0.3, requires_grad=True)
    log_p = dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(torch.tensor(1.7))
    q = torch.stack([1 - logit.sigmoid(), logit.sigmoid()])
    exact = torch.autograd.grad(-(q * log_p).sum(), logit)[0].reshape(1)
    assert exact.abs() > 0.1
    loss = ReverseKL(100, estimator=estimator)
    assert_same_mean(
        gradient_samples(loss, masked_model, masked_guide, repetitions=200, seed=1), exact
    )


# --- arguments that change what a guide is


def switching_model(kind):
    prior = dist.Bernoulli(0.5) if kind == "discrete" else dist.Normal(0.5, 0.5)
    z = pyro.sample("z", prior)
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.2))


def switching_guide(kind):
    p = pyro.param("p", torch.tensor(0.4))
    pyro.sample("z", dist.Bernoulli(p) if kind == "discrete" else dist.Normal(p, 0.5))


def test_a_guide_that_becomes_discrete_is_looked_at_again():
    loss = IWAE(4, estimator=estimators.pathwise)
    loss.loss_and_grads(switching_model, switching_guide, "continuous")
    with pytest.raises(IncompatibleEstimator, match="guide site 'z'"):
        loss.loss_and_grads(switching_model, switching_guide, "discrete")


# --- data weights as one tensor around everything


def weighted_pair(weights):
    def model():
        with pyro.plate("d", 2), poutine.scale(scale=weights):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor([0.3, 1.0]))

    def guide():
        with pyro.plate("d", 2), poutine.scale(scale=weights):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.zeros(2)), 0.7))

    return model, guide


def test_data_weights_in_a_tensor_are_refused_inside_of_a_logarithm():
    model, guide = weighted_pair(torch.tensor([2.0, 1.0]))
    with pytest.raises(UnsupportedStructure, match="share one poutine.scale that is a tensor"):
        IWAE(4).loss(model, guide)


def test_data_weights_in_a_tensor_are_exact_for_reverse_kl():
    weights = torch.tensor([2.0, 1.0])
    model, guide = weighted_pair(weights)
    guide()
    samples = gradient_samples(ReverseKL(500), model, guide, repetitions=100)
    m = torch.zeros(2, requires_grad=True)
    cross = 0.5 * (m**2).mul(weights) + 0.5 * ((torch.tensor([0.3, 1.0]) - m) ** 2).mul(weights)
    exact = torch.autograd.grad(cross.sum(), m)[0]
    assert exact.abs().max() > 0.1
    assert_same_mean(samples, exact)


def test_tail_adaptive_follows_the_path_under_any_scale():
    annealed_guide()
    value = TailAdaptive(4).loss_and_grads(annealed_model, annealed_guide)
    assert value == value
