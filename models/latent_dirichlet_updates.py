"""Coordinate ascent for the topic model by hand: updates, bound, and steps on minibatches.

The approximation is ``prod_k Dirichlet(topic_k; l_k) prod_m Dirichlet(proportions_m; g_m)`` times
``prod_mn Categorical(assignment_mn; r_mn)``. With ``E log p_j = digamma(a_j) - digamma(sum a)`` for
the probabilities of a Dirichlet(a), the factors that maximise the bound with the others held are

    r_mnk proportional to exp(E log proportions_mk + E log topic_k[word_mn]),
    g_mk = 1/2 + sum_n r_mnk,        l_kv = 1/10 + sum_mn r_mnk 1[word_mn = v].

On a minibatch of B of the M documents the last sum is a guess, ``M / B`` times that of the
minibatch, of which the topics take a step: ``l = (1 - rate) l + rate guess`` (Hoffman, Blei and
Bach, 2010). With all documents and a rate of one that is the update itself.

Sources: Blei, Ng and Jordan (2003), section 5.4; Hoffman, Blei and Bach (2010), "Online learning
for latent Dirichlet allocation".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.latent_dirichlet import ALPHA, ETA, token_mask

__all__ = [
    "Factors",
    "coordinate_updates",
    "elbo",
    "random_start",
    "stochastic_update",
    "update_assignments",
    "update_proportions",
    "update_topics",
]


@dataclass(frozen=True)
class Factors:
    """The parameters of q.

    Attributes:
        topics: Concentrations l, shape (K, V).
        proportions: Concentrations g, shape (M, K).
        assignments: Probabilities r, shape (M, L, K), zero for padding.
    """

    topics: Tensor
    proportions: Tensor
    assignments: Tensor


def random_start(
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
    topics: int = 5,
    vocabulary: int = 60,
) -> Factors:
    """Random topics, proportions and assignments without a preference.

    Example:
        >>> q = random_start(torch.zeros(3, 2, dtype=torch.long), torch.tensor([1, 2, 2]))
        >>> q.topics.shape, q.proportions[0]
        (torch.Size([5, 60]), tensor([0.7000, 0.7000, 0.7000, 0.7000, 0.7000]))
    """
    mask = token_mask(words, lengths)
    even = (mask / topics).to(torch.get_default_dtype())[..., None].expand(*mask.shape, topics)
    return Factors(0.5 + torch.rand(topics, vocabulary), ALPHA + even.sum(1), even)


def _mean_log(
    concentration: Tensor,  # (*batch, categories)
) -> Tensor:  # (*batch, categories)
    return concentration.digamma() - concentration.sum(-1, keepdim=True).digamma()


def _log_odds(q: Factors, words: Tensor) -> Tensor:  # (M, L, K)
    """``E log proportions_mk + E log topic_k[word_mn]``."""
    return _mean_log(q.proportions)[:, None] + _mean_log(q.topics).T[words]


def update_assignments(
    q: Factors,
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
) -> Factors:
    """The best assignments given all else."""
    assignments = _log_odds(q, words).softmax(-1) * token_mask(words, lengths)[..., None]
    return replace(q, assignments=assignments)


def update_proportions(q: Factors) -> Factors:
    """The best proportions given all else."""
    return replace(q, proportions=ALPHA + q.assignments.sum(1))


def update_topics(
    q: Factors,
    words: Tensor,  # (M, L)
    scale: float = 1.0,
) -> Factors:
    """The best topics given all else, if every document stands for ``scale`` of them."""
    topics, vocabulary = q.topics.shape
    counts = q.topics.new_zeros(vocabulary, topics)
    counts.index_add_(0, words.reshape(-1), q.assignments.reshape(-1, topics))
    return replace(q, topics=ETA + scale * counts.T)


def coordinate_updates(
    q: Factors,
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
    local_sweeps: int = 1,
) -> Factors:
    """One sweep: assignments and proportions ``local_sweeps`` times, then topics.

    Example:
        >>> from models.latent_dirichlet import simulate
        >>> corpus = simulate(documents=20)
        >>> before = random_start(corpus.words, corpus.lengths)
        >>> after = coordinate_updates(before, corpus.words, corpus.lengths)
        >>> bounds = [elbo(q, corpus.words, corpus.lengths) for q in (before, after)]
        >>> bool(bounds[1] > bounds[0])
        True
    """
    for _ in range(local_sweeps):
        q = update_proportions(update_assignments(q, words, lengths))
    return update_topics(q, words)


def stochastic_update(
    topics: Tensor,  # (K, V)
    words: Tensor,  # (B, L)
    lengths: Tensor,  # (B,)
    documents: int,
    rate: float,
    local_sweeps: int = 20,
) -> Tensor:  # (K, V)
    """A step of the topics' concentrations on a minibatch of B of all M ``documents``.

    Example:
        >>> from models.latent_dirichlet import simulate
        >>> corpus = simulate(documents=20)
        >>> batch = corpus.words[:4], corpus.lengths[:4]
        >>> stochastic_update(torch.ones(5, 60), *batch, documents=20, rate=0.5).shape
        torch.Size([5, 60])
    """
    batch = random_start(words, lengths, *topics.shape)
    batch = replace(batch, topics=topics)
    for _ in range(local_sweeps):
        batch = update_proportions(update_assignments(batch, words, lengths))
    guess = update_topics(batch, words, documents / words.shape[0]).topics
    return (1 - rate) * topics + rate * guess


def elbo(
    q: Factors,
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
) -> Tensor:
    """The evidence lower bound of any factors, exactly.

    Example:
        >>> words, lengths = torch.tensor([[3, 0]]), torch.tensor([1])
        >>> float(elbo(random_start(words, lengths, 2, 5), words, lengths)) < -1.6094  # log(1 / 5)
        True
    """
    smallest = torch.finfo(q.assignments.dtype).tiny  # padding has assignments of zero
    log_q = q.assignments.clamp(min=smallest).log()
    tokens = (q.assignments * (_log_odds(q, words) - log_q)).sum()
    return tokens - _kl(q.proportions, ALPHA).sum() - _kl(q.topics, ETA).sum()


def _kl(
    concentration: Tensor,  # (*batch, categories)
    prior: float,
) -> Tensor:  # (*batch)
    """From Dirichlets to a symmetric one."""
    flat = torch.full_like(concentration, prior)

    def log_normaliser(a: Tensor) -> Tensor:
        return a.lgamma().sum(-1) - a.sum(-1).lgamma()

    linear = ((concentration - flat) * _mean_log(concentration)).sum(-1)
    return linear - log_normaliser(concentration) + log_normaliser(flat)
