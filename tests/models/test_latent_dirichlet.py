"""The topic model: evidence by enumeration and quadrature, maxima, and topics that are known."""

import dataclasses
import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from scipy.special import roots_sh_jacobi

from models import latent_dirichlet as topics
from models import latent_dirichlet_updates as updates
from models.latent_dirichlet import ALPHA, ETA
from tests.left_dimensions import check_left_dimensions, log_joint

TINY = (torch.tensor([[0, 2, 1], [2, 2, 0]]), torch.tensor([3, 2]), 2, 3)


def some_factors(seed=1):
    torch.manual_seed(seed)
    words, lengths, number, vocabulary = TINY
    mask = topics.token_mask(words, lengths)
    return updates.Factors(
        0.2 + torch.rand(number, vocabulary),
        0.3 + torch.rand(len(words), number),
        torch.randn(*words.shape, number).softmax(-1) * mask[..., None],
    )


def test_enumeration_agrees_with_quadrature():
    # Two topics over two words: p(words) is a polynomial in three numbers between 0 and 1, which
    # Gauss-Jacobi integrates exactly.
    words, lengths = torch.tensor([[0, 1, 1, 0]]), torch.tensor([3])

    def rule(concentration):
        # The weight of roots_sh_jacobi(n, p, q) is (1 - t)^(p - q) t^(q - 1).
        t, weight = roots_sh_jacobi(4, 2 * concentration - 1, concentration)
        return torch.as_tensor(t), torch.as_tensor(weight / weight.sum())

    share, w_share = rule(ALPHA)
    first, w_topic = rule(ETA)
    of_zero = share[:, None, None] * first[:, None] + (1 - share[:, None, None]) * first
    chance = of_zero * (1 - of_zero) ** 2
    expected = torch.einsum("i,j,k,ijk->", w_share, w_topic, w_topic, chance)
    found = topics.log_evidence(words, lengths, 2, 2)
    assert found == pytest.approx(float(expected.log()), abs=1e-12)


def test_enumeration_agrees_with_pyro_summing_assignments_at_given_probabilities():
    # p(words | topics, proportions) by Pyro, against the formula with assignments summed out.
    words, lengths, number, vocabulary = TINY
    values = {
        "topic": dist.Dirichlet(torch.ones(number, vocabulary)).sample(),
        "proportions": dist.Dirichlet(torch.ones(2, 1, number)).sample(),
    }
    mixed = values["proportions"] @ values["topic"]  # (M, 1, V)
    chances = mixed.expand(2, 3, vocabulary).gather(-1, words[..., None])[..., 0]
    prior = dist.Dirichlet(torch.full((vocabulary,), ETA)).log_prob(values["topic"]).sum()
    prior += dist.Dirichlet(torch.full((number,), ALPHA)).log_prob(values["proportions"]).sum()
    expected = prior + chances.log()[topics.token_mask(words, lengths)].sum()
    conditioned = poutine.condition(config_enumerate(topics.model, default="parallel"), values)
    loss = TraceEnum_ELBO(max_plate_nesting=2).loss(conditioned, lambda *_: None, *TINY)
    assert -loss == pytest.approx(float(expected), abs=1e-10)


def test_the_bound_is_that_of_many_draws_of_the_model():
    words, lengths, number, _ = TINY
    q = some_factors()
    q = dataclasses.replace(q, topics=q.topics + 1, proportions=q.proportions + 1)
    draws = 20_000
    mask = topics.token_mask(words, lengths)
    padded = torch.where(mask[..., None], q.assignments, torch.ones(()) / number)
    q_sites = {
        "topic": dist.Dirichlet(q.topics),
        "proportions": dist.Dirichlet(q.proportions[:, None]),
        "assignment": dist.Categorical(padded).mask(mask),
    }
    values, log_q = {}, torch.zeros(draws)
    for name, fn in q_sites.items():
        drawn = fn.sample((draws,))
        log_q = log_q + fn.log_prob(drawn).reshape(draws, -1).sum(-1)
        values[name] = drawn[:, None] if name == "topic" else drawn
    log_w = log_joint(topics.model, TINY, {}, values, 2) - log_q
    error = float(log_w.std()) / math.sqrt(draws)
    exact = float(updates.elbo(q, words, lengths))
    assert abs(float(log_w.mean()) - exact) < 4 * error
    assert error < 0.01 * abs(exact)


def test_every_update_is_a_maximum_over_its_factor():
    words, lengths, *_ = TINY
    q = some_factors()
    mask = topics.token_mask(words, lengths)

    def bound(**changed):
        return updates.elbo(dataclasses.replace(q, **changed), words, lengths)

    def slope(name, value):
        """Along the simplex for assignments, by log-odds; else along the concentrations."""
        if name == "assignments":
            safe = torch.where(mask[..., None], value, torch.ones(()) / value.shape[-1])
            leaf = safe.log().requires_grad_()
            found = bound(assignments=leaf.softmax(-1) * mask[..., None])
        else:
            leaf = value.clone().requires_grad_()
            found = bound(**{name: leaf})
        return float(torch.autograd.grad(found, leaf)[0].abs().max())

    after = {
        "assignments": updates.update_assignments(q, words, lengths),
        "proportions": updates.update_proportions(q),
        "topics": updates.update_topics(q, words),
    }
    for name, changed in after.items():
        assert slope(name, getattr(q, name)) > 1e-2
        assert slope(name, getattr(changed, name)) < 1e-10
        assert updates.elbo(changed, words, lengths) > updates.elbo(q, words, lengths)
        for other in set(after) - {name}:
            assert getattr(changed, other) is getattr(q, other)


@pytest.mark.parametrize("seed", range(3))
def test_sweeps_climb_below_the_evidence(seed):
    words, lengths, *_ = TINY
    q = some_factors(seed)
    bounds = []
    for _ in range(200):
        bounds.append(float(updates.elbo(q, words, lengths)))
        q = updates.coordinate_updates(q, words, lengths)
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(bounds))
    evidence = topics.log_evidence(*TINY)
    assert 0.1 < evidence - bounds[-1] < 5 < evidence - bounds[0]


def found_topics(concentrations):
    return concentrations / concentrations.sum(-1, keepdim=True)


def test_the_topics_of_the_corpus_are_found():
    corpus = topics.simulate(documents=200)
    torch.manual_seed(0)
    q = updates.random_start(corpus.words, corpus.lengths)
    before = topics.topic_errors(found_topics(q.topics), corpus.topics)
    assert float(before.min()) > 0.4
    for _ in range(100):
        q = updates.coordinate_updates(q, corpus.words, corpus.lengths)
    after = topics.topic_errors(found_topics(q.topics), corpus.topics)
    assert float(after.max()) < 0.15


def test_minibatches_of_documents_reach_the_bound_of_all_of_them():
    corpus = topics.simulate(documents=200)
    words, lengths = corpus.words, corpus.lengths
    torch.manual_seed(0)
    start = updates.random_start(words, lengths)
    q = start
    for _ in range(100):
        q = updates.coordinate_updates(q, words, lengths)
    best = float(updates.elbo(q, words, lengths))

    concentrations, step = start.topics, 0
    for _ in range(5):  # passes over the data
        for index in torch.randperm(200).split(20):
            step += 1
            concentrations = updates.stochastic_update(
                concentrations, words[index], lengths[index], 200, (step + 1) ** -0.6
            )
    found = dataclasses.replace(start, topics=concentrations)
    for _ in range(20):
        found = updates.update_proportions(updates.update_assignments(found, words, lengths))
    found_bound = float(updates.elbo(found, words, lengths))
    assert found_bound > 1.01 * best
    assert float(updates.elbo(start, words, lengths)) < 1.05 * best


def test_a_step_on_all_documents_with_rate_one_is_the_update():
    words, lengths, *_ = TINY
    q = updates.random_start(*TINY)
    for _ in range(20):
        q = updates.update_proportions(updates.update_assignments(q, words, lengths))
    expected = updates.update_topics(q, words).topics
    found = updates.stochastic_update(q.topics, words, lengths, documents=2, rate=1.0)
    torch.testing.assert_close(found, expected)
    assert float((found - q.topics).abs().max()) > 0.1


def test_a_word_that_is_looked_up_has_the_density_and_the_draws_of_a_categorical():
    topic = dist.Dirichlet(torch.ones(2, 3)).sample((4, 1, 1))  # (4, 1, 1, K, V)
    assigned = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]])
    words = torch.tensor([[0, 1, 2, 2, 1], [0, 0, 0, 1, 2]])
    fn = topics.WordGivenTopic(topic, assigned)
    plain = dist.Categorical(topic[:, 0, 0][:, assigned])
    assert fn.batch_shape == plain.batch_shape == (4, 2, 5)
    torch.testing.assert_close(fn.log_prob(words), plain.log_prob(words))
    assert fn.support.check(words).all()
    assert not fn.support.check(torch.tensor(3))
    number = 20_000
    draws = fn.expand((4, 2, 5)).sample((number,))
    share = (draws[..., None] == torch.arange(3)).double().mean(0)
    error = (plain.probs * (1 - plain.probs) / number).sqrt()
    assert ((share - plain.probs).abs() < 4.5 * error).all()


def test_latents_may_have_dimensions_of_their_own():
    check_left_dimensions(topics.model, TINY, nesting=2)


def test_the_corpus_comes_from_its_topics():
    corpus = topics.simulate(documents=2000, length=20)
    mask = topics.token_mask(corpus.words, corpus.lengths)
    assert (corpus.words[~mask] == 0).all()
    assert corpus.lengths.min() == 11  # ceil(10 + 20 u)
    assert corpus.lengths.max() == 30
    torch.testing.assert_close(corpus.proportions.sum(-1), torch.ones(2000))
    counts = torch.bincount(corpus.words[mask], minlength=60).double()
    number = counts.sum()
    # Words given proportions are independent, with these chances on average over documents.
    share = corpus.lengths / number
    expected = (share @ corpus.proportions) @ corpus.topics
    error = (expected * (1 - expected) / number).sqrt()
    assert ((counts / number - expected).abs() < 4.5 * error).all()
    variance = ALPHA * 4 * ALPHA / ((5 * ALPHA) ** 2 * (5 * ALPHA + 1))
    assert float(corpus.proportions.var(0).mean()) == pytest.approx(variance, rel=0.05)


def test_minibatches_see_their_own_documents():
    corpus = topics.simulate(documents=30)
    pyro.set_rng_seed(2)
    trace = poutine.trace(topics.model).get_trace(corpus.words, corpus.lengths, subsample_size=4)
    index = trace.nodes["documents"]["value"]
    assert torch.equal(trace.nodes["word"]["value"], corpus.words[index])
    assert trace.nodes["proportions"]["value"].shape == (4, 1, 5)
    trace.compute_log_prob()
    mask = topics.token_mask(corpus.words[index], corpus.lengths[index])
    topic = trace.nodes["topic"]["value"][trace.nodes["assignment"]["value"]]
    chance = topic.gather(-1, corpus.words[index][..., None])[..., 0]
    expected = chance.log()[mask].sum() * 30 / 4
    torch.testing.assert_close(trace.nodes["word"]["log_prob_sum"], expected)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="vocabulary at least topics"):
        topics.simulate(vocabulary=3, topics=4)
    with pytest.raises(ValueError, match="17 tokens have 131072 assignments"):
        topics.log_evidence(torch.zeros(1, 17, dtype=torch.long), torch.tensor([17]), 2, 3)
