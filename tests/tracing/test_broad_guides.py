"""A broad guide weighs against the model alone: masks, ``obs_mask`` and randomness of its own.

The weights of a defensive mixture average to the evidence whatever the two guides are.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_klmodes import ForwardKL
from pyro_klmodes.errors import UnsupportedStructure

X = torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)
SEEN = torch.tensor([True, True, False])
DRAWS = 20_000


def partly_observed():
    z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    with pyro.plate("data", 3):
        pyro.sample("x", dist.Normal(z, 1.0), obs=X, obs_mask=SEEN)


def partly_observed_guide(sd):
    def guide():
        z = pyro.sample("z", dist.Normal(torch.tensor(0.5, dtype=torch.float64), sd))
        with pyro.plate("data", 3):
            pyro.sample("x_unobserved", dist.Normal(z, 1.5 * sd))

    return guide


def test_what_obs_mask_replaces_counts_in_neither_guide():
    loss = ForwardKL(DRAWS, defensive=0.5, broad=partly_observed_guide(1.5))
    weights = loss.draws(partly_observed, partly_observed_guide(1.0)).log_w.exp()
    covariance = torch.eye(2, dtype=torch.float64) + 1
    exact = dist.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(X[:2]).exp()
    error = weights.std() / DRAWS**0.5
    assert error < 0.01 * exact  # it was half again as large
    assert abs(weights.mean() - exact) < 3 * error


def masked():
    with pyro.plate("data", 3), poutine.mask(mask=SEEN):
        z = pyro.sample("z", dist.Normal(torch.zeros(3).double(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=X)


def masked_guide(sd, mask=SEEN):
    def guide():
        with pyro.plate("data", 3), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(X / 2, sd))

    return guide


def test_a_broad_guide_that_masks_alike():
    loss = ForwardKL(DRAWS, defensive=0.5, broad=masked_guide(1.5))
    weights = loss.draws(masked, masked_guide(0.8)).log_w.exp()
    exact = dist.Normal(0.0, 2**0.5).log_prob(X[:2]).exp()
    error = weights.std(0) / DRAWS**0.5
    assert bool((error[:2] < 0.01 * exact).all())
    assert bool(((weights.mean(0)[:2] - exact).abs() < 3 * error[:2]).all())
    torch.testing.assert_close(weights[:, 2], torch.ones(DRAWS).double())


@pytest.mark.parametrize("mask", [torch.tensor(True), ~SEEN, torch.tensor(False)])
def test_a_broad_guide_that_masks_otherwise_is_refused(mask):
    loss = ForwardKL(4, defensive=0.5, broad=masked_guide(1.5, mask))
    with pytest.raises(UnsupportedStructure, match="masks site 'z' other than the guide does"):
        loss.draws(masked, masked_guide(0.8))


def test_randomness_beyond_the_latents_is_refused_by_name():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def scales():
        h = pyro.sample("h", dist.Uniform(0.5, 3.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(0.0, h))

    loss = ForwardKL(4, defensive=0.5, broad=scales)
    with pytest.raises(UnsupportedStructure, match="site 'h' of scales is random beyond"):
        loss.draws(model, model)
