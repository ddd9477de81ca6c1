"""The radon model: its quadrature against dense linear algebra, and against a stored NUTS run."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats

from models import hierarchical_radon, hierarchical_radon_exact
from models.nuts_reference import stored_run

GLOBALS = ("mu_a", "beta", "gamma")
SCALES = [(0.01, 0.7), (0.35, 0.72), (1.5, 0.9)]


def as_numpy():
    return tuple(part.numpy() for part in hierarchical_radon.data())


def dense_posterior(sigma_a, sigma_y):
    """Log density of y, and the posterior of (b, alpha) given the scales, on 3 + 85 latents."""
    y, county, floor, uranium = as_numpy()
    # alpha = mu_a + gamma u + sigma_a e: the latents are a linear map of independent normals.
    counties = len(uranium)
    latent = np.zeros((3 + counties, 3 + counties))
    latent[:3, :3] = np.diag([2.0, 2.0, 2.0])
    latent[3:, 0] = 2.0
    latent[3:, 2] = 2.0 * uranium
    latent[3:, 3:] = sigma_a * np.eye(counties)
    latent_cov = latent @ latent.T

    design = np.zeros((len(y), 3 + counties))
    design[:, 1] = floor
    design[np.arange(len(y)), 3 + county] = 1
    y_cov = design @ latent_cov @ design.T + sigma_y**2 * np.eye(len(y))
    gain = np.linalg.solve(y_cov, design @ latent_cov).T
    log_density = stats.multivariate_normal.logpdf(y, np.zeros(len(y)), y_cov)
    return log_density, gain @ y, latent_cov - gain @ design @ latent_cov


def test_data_have_the_structure_of_the_study():
    y, county, floor, uranium = hierarchical_radon.data()
    assert len(y) == len(county) == len(floor) == 891
    sizes = torch.bincount(county)
    assert len(sizes) == len(uranium) == 85
    assert sizes.min() == 1
    assert sizes.max() == 114
    assert sizes.median() == 5
    assert set(floor.tolist()) == {0, 1}
    assert uranium.mean().item() == pytest.approx(0, abs=1e-12)


def test_data_are_the_same_everywhere():
    y, _, floor, uranium = hierarchical_radon.data()
    assert floor.sum() == 166
    torch.testing.assert_close(
        torch.stack([y[0], y[500], y[-1], y.sum(), uranium[0]]),
        torch.tensor([3.85371062, 1.92825586, 1.28280159, 1179.77555567, 0.28003245]),
    )


def test_true_values_lie_within_the_posterior():
    reference = hierarchical_radon.problem().reference
    for site, truth in hierarchical_radon.TRUTH.items():
        moments = reference[site]
        assert abs(moments.mean - truth) < 3 * moments.sd
        # and the data say much more than the priors, of standard deviation 0.6 and more
        assert moments.sd < 0.2


@pytest.mark.parametrize(("sigma_a", "sigma_y"), SCALES)
def test_posterior_given_the_scales_agrees_with_dense_linear_algebra(sigma_a, sigma_y):
    sums = hierarchical_radon_exact.sums_by_county(*as_numpy())
    variances = np.array([sigma_a**2]), np.array([sigma_y**2])
    mean, covariance, log_density = hierarchical_radon_exact.coefficients_given_scales(
        sums, *variances
    )
    centre, variance = hierarchical_radon_exact.intercepts_given_scales(
        sums, *variances, mean, covariance
    )
    dense_density, dense_mean, dense_cov = dense_posterior(sigma_a, sigma_y)
    assert log_density[0] == pytest.approx(dense_density, abs=1e-7)
    np.testing.assert_allclose(mean[0], dense_mean[:3], rtol=0, atol=1e-8)
    np.testing.assert_allclose(covariance[0], dense_cov[:3, :3], rtol=0, atol=1e-8)
    np.testing.assert_allclose(centre[0], dense_mean[3:], rtol=0, atol=1e-8)
    np.testing.assert_allclose(variance[0], dense_cov.diagonal()[3:], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("sigma_a", "sigma_y"), SCALES[1:])
def test_model_is_the_one_that_was_integrated(sigma_a, sigma_y):
    # p(latents, scales, y) / p(latents | scales, y) = p(scales, y) at any latents.
    scales = {"sigma_a": torch.tensor(sigma_a), "sigma_y": torch.tensor(sigma_y)}
    conditioned = poutine.condition(hierarchical_radon.model, scales)
    trace = poutine.trace(conditioned).get_trace(*hierarchical_radon.data())
    latents = torch.cat(
        [torch.stack([trace.nodes[n]["value"] for n in GLOBALS]), trace.nodes["alpha"]["value"]]
    )
    log_density, mean, covariance = dense_posterior(sigma_a, sigma_y)
    log_posterior = stats.multivariate_normal.logpdf(latents.numpy(), mean, covariance)
    log_prior = stats.halfnorm.logpdf([sigma_a, sigma_y]).sum()
    assert trace.log_prob_sum().item() - log_posterior == pytest.approx(
        log_density + log_prior, abs=1e-6
    )


def test_quadrature_does_not_change_with_the_step():
    coarse, coarse_evidence = hierarchical_radon_exact.posterior_by_quadrature(
        *as_numpy(), step=0.1
    )
    fine, fine_evidence = hierarchical_radon_exact.posterior_by_quadrature(*as_numpy(), step=0.03)
    assert coarse_evidence == pytest.approx(fine_evidence, abs=1e-9)
    for site in fine:
        torch.testing.assert_close(coarse[site].mean, fine[site].mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(coarse[site].sd, fine[site].sd, rtol=0, atol=1e-9)


def test_quadrature_agrees_with_the_stored_nuts_run():
    run = stored_run("hierarchical_radon")
    assert run.settings["chains"] * run.settings["draws"] == 8000
    assert run.settings["divergences"] == 0
    exact = hierarchical_radon.problem().reference
    assert set(run.sites) == set(exact)
    for name, site in run.sites.items():
        assert (site.rhat < 1.01).all()
        assert (site.ess > 1000).all()
        # 180 numbers are compared, hence four standard errors.
        assert ((site.mean - exact[name].mean).abs() < 4 * site.mean_error).all()
        assert ((site.sd - exact[name].sd).abs() < 4 * site.sd_error).all()
        # The comparison is sharp enough to mean something.
        assert (site.mean_error < 0.04 * exact[name].sd).all()
        assert (site.sd_error < 0.04 * exact[name].sd).all()


def test_minibatches_average_to_the_log_density_of_all_houses():
    arguments = hierarchical_radon.data()
    full = poutine.trace(hierarchical_radon.model).get_trace(*arguments)
    values = {site: full.nodes[site]["value"] for site in (*GLOBALS, "sigma_a", "sigma_y", "alpha")}
    model = poutine.trace(poutine.condition(hierarchical_radon.model, values))
    batches = torch.randperm(891).reshape(9, 99)  # every house in one of nine minibatches
    log_probs = torch.stack(
        [model.get_trace(*arguments, subsample=batch).log_prob_sum() for batch in batches]
    )
    torch.testing.assert_close(log_probs.mean(), full.log_prob_sum(), rtol=1e-12, atol=1e-8)
    assert log_probs.std() > 1  # the minibatches do differ


def test_only_the_likelihood_is_scaled_in_a_minibatch():
    case = hierarchical_radon.problem(subsample_size=100)
    trace = poutine.trace(case.model).get_trace(*case.args, **case.kwargs)
    assert trace.nodes["alpha"]["value"].shape == (85,)
    assert trace.nodes["alpha"]["scale"] == 1
    assert trace.nodes["y"]["value"].shape == (100,)
    assert trace.nodes["y"]["scale"] == pytest.approx(8.91)
    assert math.isfinite(trace.log_prob_sum())
