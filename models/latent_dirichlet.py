"""A topic model: documents are mixtures of topics, topics are distributions over words.

    topic_k ~ Dirichlet(1/10) over V words,         k = 1..K
    proportions_m ~ Dirichlet(1/2) over K topics,   m = 1..M
    assignment_mn ~ Categorical(proportions_m),     n = 1..N_m
    word_mn ~ Categorical(topic[assignment_mn])

The corpus is simulated from topics that are known: hills of probability around a circle of words,
each reaching over its neighbours. Documents have different lengths; they are padded with the word
0, and a mask takes the padding out. Tokens lie along the last batch dimension, documents along the
one before. Latents may have dimensions to the left of both, also the topics: their plate is the
last dimension, out of the way of which the lookup puts them first.

Topics can be told apart by their order alone, which the posterior does not know: compare them with
the true ones after matching (``topic_errors``). The updates of coordinate ascent are in
``latent_dirichlet_updates``.

Source: Blei, Ng and Jordan (2003), "Latent Dirichlet allocation".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.ops.indexing import Vindex
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaincinv
from torch import Tensor

__all__ = [
    "ALPHA",
    "ETA",
    "Corpus",
    "WordGivenTopic",
    "log_evidence",
    "model",
    "simulate",
    "token_mask",
    "topic_errors",
    "true_topics",
]

ALPHA, ETA = 0.5, 0.1  # of the Dirichlet priors of proportions and topics
FLOOR = 0.1  # the share of a true topic that is spread over all words
SEED = 2003
NO_SHAPE = torch.Size()


@dataclass(frozen=True)
class Corpus:
    """Documents and what they come from.

    Attributes:
        words: Tokens, padded with zeros, shape (M, L), whole numbers.
        lengths: How many tokens of each document are there, shape (M,).
        topics: The true topics, shape (K, V).
        proportions: The true proportions, shape (M, K).
    """

    words: Tensor
    lengths: Tensor
    topics: Tensor
    proportions: Tensor


def true_topics(topics: int = 5, vocabulary: int = 60) -> Tensor:  # (topics, vocabulary)
    """Hills around a circle of words, with a third of their distance as width, and a floor.

    Example:
        >>> true_topics().shape, true_topics().argmax(-1)
        (torch.Size([5, 60]), tensor([ 0, 12, 24, 36, 48]))
    """
    apart = vocabulary / topics
    words = torch.arange(vocabulary, dtype=torch.float64)
    distance = (words - apart * torch.arange(topics)[:, None]).abs()
    distance = torch.minimum(distance, vocabulary - distance)
    hills = torch.exp(-0.5 * (distance / (0.35 * apart)) ** 2)
    found = (1 - FLOOR) * hills / hills.sum(-1, keepdim=True) + FLOOR / vocabulary
    return found.to(torch.get_default_dtype())


def simulate(
    documents: int = 300,
    vocabulary: int = 60,
    topics: int = 5,
    length: int = 50,
    seed: int = SEED,
) -> Corpus:
    """Documents of ``length / 2`` to ``3 length / 2`` tokens, with proportions from their prior.

    Uniform numbers of a seeded PCG64 generator through quantile functions.

    Raises:
        ValueError: If a size is below one, or there are more topics than words.

    Example:
        >>> corpus = simulate(documents=10)
        >>> corpus.words.shape[0], int(corpus.lengths.min()) >= 25, corpus.topics.shape
        (10, True, torch.Size([5, 60]))
    """
    if min(documents, topics, length) < 1 or vocabulary < topics:
        raise ValueError(
            "documents, topics and length must be at least 1 and vocabulary at least topics, got "
            f"{documents=}, {topics=}, {length=}, {vocabulary=}"
        )
    uniform = np.random.Generator(np.random.PCG64(seed)).random
    true = true_topics(topics, vocabulary)
    gammas = gammaincinv(ALPHA, uniform((documents, topics)))
    proportions = gammas / gammas.sum(-1, keepdims=True)
    lengths = np.ceil(length * (0.5 + uniform(documents))).astype(np.int64)
    longest = int(lengths.max())
    # The number of steps of a cumulative distribution below a uniform number.
    steps = proportions.cumsum(-1)[:, None, :-1]
    assigned = (uniform((documents, longest))[..., None] > steps).sum(-1)
    steps = true.double().numpy().cumsum(-1)[assigned][..., :-1]
    words = (uniform((documents, longest))[..., None] > steps).sum(-1)
    words = np.where(np.arange(longest) < lengths[:, None], words, 0)
    return Corpus(
        torch.as_tensor(words),
        torch.as_tensor(lengths),
        true,
        torch.as_tensor(proportions, dtype=true.dtype),
    )


def token_mask(
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
) -> Tensor:  # (M, L)
    """Which tokens are there.

    Example:
        >>> token_mask(torch.zeros(2, 3), torch.tensor([1, 3]))
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    return torch.arange(words.shape[-1]) < lengths[:, None]


def model(
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
    topics: int = 5,
    vocabulary: int = 60,
    subsample_size: int | None = None,
) -> None:
    """Sites ``topic``, ``proportions``, ``assignment`` and ``word``.

    ``topic``: (K) events (V,) in the plate ``topics``; ``proportions``: (M, 1) events (K,) in
    ``documents``; ``assignment`` and ``word``: (M, L) in ``documents`` and ``tokens``.

    Args:
        words: The tokens of all documents, also when there are minibatches.
        lengths: How many tokens of each document are there.
        topics: Number K of topics.
        vocabulary: Number V of words.
        subsample_size: Number of documents in a random minibatch; None for all.
    """
    dtype = torch.get_default_dtype()
    documents = pyro.plate("documents", words.shape[0], subsample_size, dim=-2)
    with pyro.plate("topics", topics, dim=-1):
        prior = dist.Dirichlet(torch.full((vocabulary,), ETA, dtype=dtype))
        topic = pyro.sample("topic", prior)  # (K, V)
    here = topic.unsqueeze(-3)  # (1, K, V), or (*left, 1, 1, K, V): as if it were in no plate
    with documents as index:
        prior = dist.Dirichlet(torch.full((topics,), ALPHA, dtype=dtype))
        proportions = pyro.sample("proportions", prior)  # (M, 1, K)
        seen = pyro.poutine.mask(mask=token_mask(words[index], lengths[index]))
        with pyro.plate("tokens", words.shape[1], dim=-1), seen:
            assigned = pyro.sample("assignment", _categorical(proportions))  # (M, L)
            pyro.sample("word", WordGivenTopic(here, assigned), obs=words[index])


def _categorical(
    probabilities: Tensor,  # (*batch, categories)
) -> dist.Categorical:
    """A categorical that knows probabilities down to the smallest number there is.

    From probabilities Pyro makes one that takes all below the rounding error for equal to it. The
    sparse topics of the prior have many of them.
    """
    smallest = torch.finfo(probabilities.dtype).tiny
    return dist.Categorical(logits=probabilities.clamp(min=smallest).log())


class WordGivenTopic(dist.TorchDistribution):
    """``Categorical(topics[..., assigned, :])``, of which only the observed entry is looked up.

    For every token a row of all words would have to be gathered, normalised and thrown away.

    Args:
        topics: Probabilities, (*left, 1, K, V), the second dimension that of the tokens.
        assigned: Numbers of topics, of any shape that broadcasts with (*left, 1).

    Example:
        >>> fn = WordGivenTopic(true_topics()[None], torch.tensor([0, 0, 3]))
        >>> fn.log_prob(torch.tensor([0, 30, 30])).shape
        torch.Size([3])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, topics: Tensor, assigned: Tensor) -> None:
        self.topics, self.assigned = topics, assigned
        batch_shape = torch.broadcast_shapes(topics.shape[:-2], assigned.shape)
        super().__init__(batch_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """The words."""
        return constraints.integer_interval(0, self.topics.shape[-1] - 1)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> WordGivenTopic:
        """The same over more tokens."""
        new = WordGivenTopic(self.topics, self.assigned)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(
        self,
        value: Tensor,  # (*batch)
    ) -> Tensor:  # (*batch)
        """The log-probabilities of words."""
        smallest = torch.finfo(self.topics.dtype).tiny
        log_p = Vindex(self.topics)[..., self.assigned, value].clamp(min=smallest).log()
        shape = torch.broadcast_shapes(log_p.shape, self.batch_shape)
        return log_p.expand(shape)

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:  # (*sample_shape, *batch)
        """Draw words."""
        rows = Vindex(self.topics)[..., self.assigned, :]
        return dist.Categorical(rows).expand(self.batch_shape).sample(sample_shape)


def log_evidence(
    words: Tensor,  # (M, L)
    lengths: Tensor,  # (M,)
    topics: int,
    vocabulary: int,
) -> float:
    """``log p(words)`` of a tiny corpus, by a sum over all assignments of tokens to topics.

    Given assignments everything is Dirichlet-multinomial. A sum of ``topics`` to the power of the
    number of tokens: 4096 for twelve tokens and two topics.

    Raises:
        ValueError: If there are more than 100 000 assignments.

    Example:
        >>> log_evidence(torch.tensor([[3]]), torch.tensor([1]), 2, 5)  # log(1 / 5)
        -1.6094...
    """
    mask = token_mask(words, lengths)
    word, document = words[mask], torch.where(mask)[0]
    count = topics ** len(word)
    if count > 100_000:
        raise ValueError(f"{len(word)} tokens have {count} assignments, more than 100 000")
    states = torch.tensor(list(product(range(topics), repeat=len(word))))  # (states, tokens)
    one_hot = torch.nn.functional.one_hot(states, topics).double()
    by_document = torch.nn.functional.one_hot(document, words.shape[0]).double()
    by_word = torch.nn.functional.one_hot(word, vocabulary).double()
    in_documents = torch.einsum("snk,nm->smk", one_hot, by_document)
    in_topics = torch.einsum("snk,nv->skv", one_hot, by_word)
    log_p = _dirichlet_multinomial(in_documents, ALPHA) + _dirichlet_multinomial(in_topics, ETA)
    return float(log_p.logsumexp(0))


def _dirichlet_multinomial(
    counts: Tensor,  # (states, groups, categories)
    concentration: float,
) -> Tensor:  # (states,)
    """Log-probability of sequences with such counts, with probabilities integrated out."""
    prior = torch.full_like(counts, concentration)
    log_p = (counts + prior).lgamma().sum(-1) - (counts + prior).sum(-1).lgamma()
    return (log_p - prior.lgamma().sum(-1) + prior.sum(-1).lgamma()).sum(-1)


def topic_errors(
    found: Tensor,  # (K, V)
    true: Tensor,  # (K, V)
) -> Tensor:  # (K,)
    """Total variation between each true topic and the found one that is matched to it.

    The matching has the least total. 0 is perfect, 1 is disjoint.

    Example:
        >>> topic_errors(true_topics().flip(0), true_topics())
        tensor([0., 0., 0., 0., 0.])
    """
    distance = 0.5 * (true[:, None] - found).abs().sum(-1)
    rows, columns = linear_sum_assignment(distance.numpy())
    return distance[torch.as_tensor(rows), torch.as_tensor(columns)]
