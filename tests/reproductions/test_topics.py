"""Stochastic variational inference for topics: fewer passes over the data (Hoffman et al. 2013)."""

import pyro
import pytest

from models import latent_dirichlet
from pyro_klmodes.inference.cavi import CAVI, RobbinsMonro

DOCUMENTS, BATCH = 300, 30
LOCAL = ("proportions", "assignment")


def elbo_of_all(guide, corpus):
    """The ELBO of the global sites, with the best local ones for them."""
    with pyro.get_param_store().scope():
        ready = CAVI(latent_dirichlet.model, guide).prepare(corpus.words, corpus.lengths)
    for _ in range(200):
        if ready.sweeper.sweep(sites=LOCAL) < 1e-5:
            break
    return ready.sweeper.elbo


@pytest.mark.slow
def test_minibatches_of_documents_get_there_in_fewer_passes():
    corpus = latent_dirichlet.simulate(DOCUMENTS)
    whole = CAVI(latent_dirichlet.model).fit(corpus.words, corpus.lengths, steps=150)
    best = float(whole.elbos[-1])
    near = best - 0.01 * abs(best)
    full_passes = 1 + int((whole.elbos > near).nonzero()[0])

    reached = {}
    for passes in (5, 10):
        part = CAVI(latent_dirichlet.model, step=RobbinsMonro(1.0, 0.6)).fit(
            corpus.words,
            corpus.lengths,
            subsample_size=BATCH,
            steps=passes * DOCUMENTS // BATCH,
        )
        reached[passes] = elbo_of_all(part.guide.to_train(), corpus)

    print(f"all documents: {best:.1f}, within 1 % after {full_passes} passes; batches: {reached}")
    assert reached[10] > near
    assert full_passes > 10
    assert float(whole.elbos[0]) < best - 5 * 0.01 * abs(best)
    concentration = part.guide.to_train().parameters_of("topic")["concentration"].detach()
    found = concentration / concentration.sum(-1, keepdim=True)
    assert latent_dirichlet.topic_errors(found, corpus.topics).max() < 0.25
