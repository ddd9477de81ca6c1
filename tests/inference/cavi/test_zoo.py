"""Coordinate ascent on the models of the zoo: their own references, and ascent from any start."""

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine

from models import (
    bayesian_factor_analysis,
    bayesian_gaussian_mixture,
    bayesian_linear_regression,
    bayesian_linear_regression_updates,
    ising_denoise,
    ising_denoise_updates,
    latent_dirichlet,
    variational_em_bias,
)
from pyro_klmodes.inference.cavi import CAVI


@pytest.mark.parametrize("conjugate", [True, False])
def test_regression_ends_at_the_fixed_point_of_its_updates(conjugate):
    x, y = bayesian_linear_regression.data(4)
    model = (
        bayesian_linear_regression.model
        if conjugate
        else bayesian_linear_regression.semi_conjugate_model
    )
    exact = bayesian_linear_regression_updates.fixed_point(x, y, conjugate=conjugate)
    bound = bayesian_linear_regression_updates.elbo(exact, x, y, conjugate=conjugate)

    result = CAVI(model, exact=True).fit(x, y)

    assert float(result.elbos[-1]) == pytest.approx(float(bound), abs=1e-8)
    assert float(result.elbos[0]) < float(bound) - 5e-8
    found = result.site_params["tau"]
    torch.testing.assert_close(found["concentration"], exact.concentration, rtol=1e-9, atol=0)
    torch.testing.assert_close(found["rate"], exact.rate, rtol=1e-6, atol=0)


def test_ising_ends_at_the_fixed_point_of_mean_field():
    image = ising_denoise.tiny()
    exact = ising_denoise_updates.fixed_point(image)
    bound = float(ising_denoise_updates.elbo(exact, image))
    evidence = ising_denoise.problem().log_evidence

    result = CAVI(ising_denoise.model, exact=True).fit(image)

    assert float(result.elbos[-1]) == pytest.approx(bound, abs=1e-8)
    assert bound < evidence


def corpus(seed, size):
    simulated = latent_dirichlet.simulate(
        documents=size, vocabulary=8, topics=2, length=6, seed=seed
    )
    return (simulated.words, simulated.lengths), {"topics": 2, "vocabulary": 8}


def mixture(seed, size):
    x = torch.randn(size + 8, 2) + 4 * torch.randint(2, (size + 8, 1))
    prior = bayesian_gaussian_mixture.scikit_learn_prior(x, 2)
    return (x, prior), {}


def regression(seed, size):
    return (torch.randn(size, 3), torch.randn(size) + seed % 3), {}


ZOO = {
    "regression": (bayesian_linear_regression.model, regression),
    "semi-conjugate regression": (bayesian_linear_regression.semi_conjugate_model, regression),
    "factor analysis": (
        bayesian_factor_analysis.model,
        lambda seed, size: ((bayesian_factor_analysis.simulate(size, 4, 1, seed)[0], 1), {}),
    ),
    "topics": (latent_dirichlet.model, corpus),
    "Ising": (
        ising_denoise.model,
        lambda seed, size: (((torch.rand(3, size) > 0.5).double(),), {}),
    ),
    "two causes": (
        poutine.substitute(variational_em_bias.model, data={"w": torch.tensor(0.8)}),
        lambda seed, size: ((torch.randn(size),), {"variance": 0.3}),
    ),
    "mixture": (bayesian_gaussian_mixture.bayesian_model, mixture),
}


LONG = ("factor analysis", "mixture", "topics")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in ZOO]
)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), size=st.integers(3, 12))
def test_no_sweep_lowers_the_elbo(name, seed, size):
    """Five random starts for each of four data sets."""
    model, make = ZOO[name]
    pyro.set_rng_seed(seed)
    args, kwargs = make(seed, size)
    for start in range(5):
        pyro.clear_param_store()

        result = CAVI(model).fit(*args, steps=6, seed=seed + start, **kwargs)

        assert result.conjugacy.conjugate
        elbos = result.elbos
        assert elbos.diff().min() > -1e-9 * elbos.abs().max() if len(elbos) > 1 else True
