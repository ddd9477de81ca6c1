"""Models without a place among the common problems follow the default dtype too."""

import pytest
import torch
from pyro import poutine

from models import (
    bayesian_factor_analysis,
    bayesian_linear_regression,
    factor_analysis,
    ising_denoise,
    latent_dirichlet,
    variational_em_bias,
)


def corpus():
    found = latent_dirichlet.simulate(documents=5)
    return found.words, found.lengths


CASES = {
    "regression": (bayesian_linear_regression.model, bayesian_linear_regression.data),
    "semi_conjugate": (
        bayesian_linear_regression.semi_conjugate_model,
        bayesian_linear_regression.data,
    ),
    "factors": (factor_analysis.model, lambda: (factor_analysis.data(),)),
    "bayesian_factors": (
        bayesian_factor_analysis.model,
        lambda: bayesian_factor_analysis.simulate()[:1],
    ),
    "topics": (latent_dirichlet.model, corpus),
    "spins": (ising_denoise.model, lambda: (ising_denoise.tiny(),)),
    "two_causes": (variational_em_bias.model, lambda: (variational_em_bias.data(1.0, 1.0),)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_default_dtype_at_the_time_of_the_call_is_used(name, dtype):
    torch.set_default_dtype(dtype)
    model, args = CASES[name]
    trace = poutine.trace(model).get_trace(*args())
    trace.compute_log_prob()
    scored = [site["log_prob"] for site in trace.nodes.values() if "log_prob" in site]
    assert {log_prob.dtype for log_prob in scored if log_prob.is_floating_point()} == {dtype}
    assert torch.isfinite(trace.log_prob_sum())
