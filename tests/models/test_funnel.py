"""The funnel's moments and quantiles against integrals of another kind."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from models import funnel


@pytest.mark.parametrize("scale_sd", [1.0, 3.0])
def test_moments_are_those_of_a_lognormal_scale(scale_sd):
    reference = funnel.problem(dimension=4, scale_sd=scale_sd).reference
    second_moment = stats.lognorm.mean(s=scale_sd)  # E[x^2] = E[exp(v)]
    torch.testing.assert_close(reference["x"].sd, torch.full((3,), math.sqrt(second_moment)))
    assert reference["v"].sd == scale_sd
    assert not reference["x"].mean.any()


@pytest.mark.parametrize("scale_sd", [1.0, 3.0])
def test_quantiles_agree_with_the_integral_of_the_marginal_density(scale_sd):
    upper, lower = funnel.local_quantile([0.9, 0.6], scale_sd).tolist()
    # The marginal density integrated over log x and v, both by the trapezoid rule.
    log_x, dx = np.linspace(math.log(lower), math.log(upper), 2001, retstep=True)
    v, dv = np.linspace(-10 * scale_sd, 10 * scale_sd, 401, retstep=True)
    joint = stats.norm.pdf(np.exp(log_x)[:, None], 0, np.exp(v / 2)) * stats.norm.pdf(
        v, 0, scale_sd
    )
    density = dv * joint.sum(1) * np.exp(log_x)
    mass = dx * (density.sum() - (density[0] + density[-1]) / 2)
    assert mass == pytest.approx(0.3, abs=1e-6)


def test_quantiles_are_symmetric_and_grow_to_the_far_tail():
    levels = np.array([1e-9, 0.01, 0.25, 0.5, 0.75, 0.99])
    quantiles = funnel.local_quantile(levels)
    torch.testing.assert_close(quantiles[1:3], -quantiles[[5, 4]], rtol=0, atol=1e-9)
    assert (quantiles.diff() > 0).all()
    assert funnel.local_cdf(float(quantiles[0])) == pytest.approx(1e-9, rel=1e-6)


def test_log_density_is_neals():
    pyro.set_rng_seed(1)
    trace = poutine.trace(funnel.model).get_trace(10, 3.0)
    v, x = trace.nodes["v"]["value"].item(), trace.nodes["x"]["value"].numpy()
    assert x.shape == (9,)
    expected = stats.norm.logpdf(v, 0, 3) + stats.norm.logpdf(x, 0, math.exp(v / 2)).sum()
    assert trace.log_prob_sum().item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 1}, "dimension must be at least 2, got 1"),
        ({"scale_sd": 0.0}, "scale_sd must be positive, got 0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        funnel.problem(**arguments)
