"""The mixture of twenty: posterior and likelihood by enumeration, and the numbers of the paper."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from scipy import stats
from torch.utils.data import DataLoader

from models import gmm_discrete
from models.gmm_discrete import COMPONENTS, FreshData, Mixture


def test_weights_and_start_are_those_of_the_paper():
    expected = (np.arange(20) + 5) / (np.arange(20) + 5).sum()
    np.testing.assert_allclose(gmm_discrete.true_weights().numpy(), expected)
    start = np.exp(0.5 * np.array([2.0 * (19 - k) for k in range(20)]))
    np.testing.assert_allclose(Mixture().weights().numpy(), start / start.sum(), rtol=1e-12)


def test_likelihood_and_posterior_by_scipy():
    x = np.array([-3.0, 57.0, 101.5, 200.0])
    weights = (np.arange(20) + 5) / (np.arange(20) + 5).sum()
    joint = weights * stats.norm.pdf(x[:, None], 10 * np.arange(20), 5)
    found = gmm_discrete.log_joint(gmm_discrete.true_weights(), torch.tensor(x))
    np.testing.assert_allclose(found.exp().numpy(), joint, rtol=1e-10)


def test_the_likelihood_is_the_one_that_pyro_enumerates():
    mixture, x = Mixture(), gmm_discrete.data(20)
    enumerated = config_enumerate(mixture.model, default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(enumerated, lambda _: None, x)
    exact = gmm_discrete.log_likelihood(mixture, x).sum().item()
    assert -loss == pytest.approx(exact, abs=1e-9)


def test_the_bound_of_the_enumerated_guide_is_the_sum_over_components():
    mixture, x = Mixture(), gmm_discrete.data(20)
    guide = config_enumerate(mixture.guide, default="parallel")
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(mixture.model, guide, x)
    with torch.no_grad():
        log_q = mixture.encoder(x[:, None]).log_softmax(-1)
        log_w = gmm_discrete.log_joint(mixture.weights(), x) - log_q
        assert -loss == pytest.approx(float((log_q.exp() * log_w).sum()), abs=1e-9)


def test_errors_are_zero_at_the_truth():
    mixture = Mixture()
    with torch.no_grad():
        mixture.mixture["logits"].copy_(2 * gmm_discrete.true_weights().log())
    assert gmm_discrete.weights_error(mixture) < 1e-12

    posterior = gmm_discrete.log_joint

    class Exact(torch.nn.Module):
        def forward(self, x):
            return posterior(gmm_discrete.true_weights(), x[..., 0])

    mixture.encoder = Exact()
    assert gmm_discrete.guide_error(mixture, gmm_discrete.data(50)) < 1e-12
    assert gmm_discrete.weights_error(Mixture()) > 0.6


def test_data_have_the_true_weights_and_every_batch_is_new():
    batches = list(DataLoader(FreshData(batch_size=200, batches=100), batch_size=None))
    x = torch.cat([x for (x,) in batches])
    assert x.shape == (20_000,)
    assert len(x.unique()) == len(x)
    again = next(iter(DataLoader(FreshData(batch_size=200, batches=1), batch_size=None)))
    assert not torch.equal(again[0], batches[0][0])
    weights = gmm_discrete.true_weights()
    centres = 10.0 * torch.arange(COMPONENTS)
    mean = float(weights @ centres)
    variance = 25 + float(weights @ centres**2) - mean**2
    # 4 standard errors of 20000 draws
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / 20_000)


def test_the_test_set_stays_the_same():
    first, second = (gmm_discrete.training().test[:][0] for _ in range(2))
    pyro.set_rng_seed(5)
    assert torch.equal(first, second)
    assert torch.equal(first, gmm_discrete.training().test[:][0])
    assert first.shape == (1000,)
