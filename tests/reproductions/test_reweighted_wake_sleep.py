"""A mixture of twenty normals with a discrete latent: which phases learn model and guide.

Le, Kosiorek, Siddharth, Teh and Wood (2020), "Revisiting reweighted wake-sleep for models with
stochastic control flow": reweighted wake-sleep improves model and guide with more particles, the
multi-sample bound with VIMCO learns the same model with a worse guide, a defensive uniform
component rescues few particles, and plain wake-sleep fails from the hard start. Here with 8000
steps at a learning rate of 3e-3 (the paper: 100,000 at 1e-3) and three seeds.
"""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

from models import gmm_discrete
from pyro_klmodes import IWAE, WakeSleep, estimators

STEPS, BATCH = 8000, 100
SEEDS = (0, 1, 2)
REWEIGHTED = {"wake_phi": 1.0, "sleep_phi": 0.0}


def uniform(x):
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(x.new_ones(gmm_discrete.COMPONENTS)))


LOSSES = {
    "RWS 2": lambda: WakeSleep(2, **REWEIGHTED),
    "RWS 20": lambda: WakeSleep(20, **REWEIGHTED),
    "defensive RWS 2": lambda: WakeSleep(2, **REWEIGHTED, defensive=0.2, broad=uniform),
    "wake-sleep 2": lambda: WakeSleep(2, num_simulations=2),
    "VIMCO 20": lambda: IWAE(20, estimator=estimators.score),
}


@functools.cache
def errors(name: str, seed: int) -> tuple[float, float]:
    """Errors of the model's weights and of the guide, after training."""
    torch.set_default_dtype(torch.float32)
    try:
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        mixture = gmm_discrete.Mixture()
        svi = SVI(mixture.model, mixture.guide, pyro.optim.Adam({"lr": 3e-3}), loss=LOSSES[name]())
        for _ in range(STEPS):
            svi.step(gmm_discrete.data(BATCH))
        test = gmm_discrete.data(1000, torch.Generator().manual_seed(gmm_discrete.SEED))
        return gmm_discrete.weights_error(mixture), gmm_discrete.guide_error(mixture, test)
    finally:
        torch.set_default_dtype(torch.float64)


def over_seeds(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both errors of all seeds."""
    model, guide = zip(*(errors(name, seed) for seed in SEEDS), strict=True)
    print(name, "model", model, "guide", guide)
    return torch.tensor(model), torch.tensor(guide)


def test_the_hard_start_is_far_off():
    start = gmm_discrete.Mixture()
    assert gmm_discrete.weights_error(start) > 0.6


@pytest.mark.slow
def test_many_particles_learn_the_model_and_the_guide():
    """Measured: .041 to .044 and .099 to .111; VIMCO .043 to .070 and .178 to .337."""
    model, guide = over_seeds("RWS 20")
    assert float(model.max()) < 0.06
    assert float(guide.max()) < 0.13
    of_bound, guide_of_bound = over_seeds("VIMCO 20")
    assert float(of_bound.max()) < 0.09
    assert float(guide_of_bound.min()) > 0.15
    assert float(guide_of_bound.min()) > float(guide.max())


@pytest.mark.slow
def test_a_uniform_component_rescues_few_particles():
    """Measured: .458 to .469 without, .154 to .167 with it."""
    model, guide = over_seeds("RWS 2")
    rescued, better = over_seeds("defensive RWS 2")
    assert float(model.min()) > 0.4
    assert float(rescued.max()) < 0.2
    assert float(better.max()) < float(guide.min())


@pytest.mark.slow
def test_plain_wake_sleep_stays_at_the_hard_start():
    """Dreams of a model that knows one component say nothing about the others: .70 to .78."""
    model, _ = over_seeds("wake-sleep 2")
    assert float(model.min()) > 0.6
    assert float(model.min()) > float(over_seeds("RWS 2")[0].max())
