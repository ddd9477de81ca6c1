"""Points around a parabola: posteriors against other integrals, and two modes where they are."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import integrate, stats

from models import nonlinear_latent
from models.nonlinear_latent import NOISE


def density(z, x):
    """``p(x, z)`` by scipy."""
    mean = np.array([z / 2, z**2 / 2])
    return stats.norm.pdf(z) * stats.norm.pdf(x, mean, NOISE).prod()


def test_log_joint_is_the_density_of_the_model():
    x, _ = nonlinear_latent.data(5)
    trace = poutine.trace(nonlinear_latent.model).get_trace(x)
    trace.compute_log_prob()
    expected = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
    found = nonlinear_latent.log_joint(trace.nodes["z"]["value"], x)
    torch.testing.assert_close(found, expected)


def test_evidence_and_moments_agree_with_adaptive_quadrature():
    case = nonlinear_latent.problem(num_data=6)
    (x,) = case.args
    log_evidence = 0.0
    for i, point in enumerate(x.numpy()):
        moments = [
            integrate.quad(
                lambda z, k=k, point=point: z**k * density(z, point),
                -7,
                7,
                points=np.linspace(-6, 6, 25),
                limit=200,
                epsabs=1e-13,
            )[0]
            for k in range(3)
        ]
        mean = moments[1] / moments[0]
        sd = math.sqrt(moments[2] / moments[0] - mean**2)
        assert case.reference["z"].mean[i].item() == pytest.approx(mean, abs=1e-8)
        assert case.reference["z"].sd[i].item() == pytest.approx(sd, rel=1e-8)
        log_evidence += math.log(moments[0])
    assert case.log_evidence == pytest.approx(log_evidence, abs=1e-9)


def test_a_coarser_grid_gives_the_same():
    x, _ = nonlinear_latent.data(2000)
    z = nonlinear_latent.grid(step=0.04, end=6.4)
    coarse = torch.logsumexp(nonlinear_latent.log_joint(z[:, None], x), 0) + math.log(0.04)
    assert float(z[1] - z[0]) == pytest.approx(0.04)
    fine, _, _ = nonlinear_latent.posteriors(x)
    torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-9)


def test_posteriors_have_one_mode_at_the_bottom_and_far_out_and_two_between():
    x = nonlinear_latent.decoder(torch.tensor([0.0, 1.5, 4.0]))
    x[1, 0] = 0.05  # hardly a hint of the sign
    log_p = nonlinear_latent.log_joint(nonlinear_latent.grid()[:, None], x)
    high = log_p[1:-1] > log_p.amax(0) - 3  # within a factor of 20 of the highest point
    peaks = ((log_p[1:-1] > log_p[:-2]) & (log_p[1:-1] > log_p[2:]) & high).sum(0)
    assert peaks.tolist() == [1, 2, 1]


def test_the_data_come_from_their_latents():
    x, z = nonlinear_latent.data(2000)
    noise = (x - nonlinear_latent.decoder(z)) / NOISE
    for sample in (z, *noise.unbind(-1)):
        assert stats.kstest(sample.numpy(), "norm").pvalue > 0.01
    assert torch.equal(nonlinear_latent.data(2000)[0], x)


def test_minibatches_see_their_own_points():
    case = nonlinear_latent.problem(num_data=50, subsample_size=10)
    trace = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    index = trace.nodes["data"]["value"]
    assert torch.equal(trace.nodes["x"]["value"], case.args[0][index])


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="num_data must be at least 1, got 0"):
        nonlinear_latent.problem(num_data=0)
