"""Factor analysis: exact EM and closed forms against other densities, optimisers and packages."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from sklearn.decomposition import PCA, FactorAnalysis

from models import factor_analysis
from models.factor_analysis import Parameters, log_likelihood
from tests.left_dimensions import check_left_dimensions

both_kinds = pytest.mark.parametrize("common", [False, True])


def some_parameters(size=5, latents=2, *, common=False):
    torch.manual_seed(1)
    variance = torch.rand(()) if common else torch.rand(size)
    return Parameters(torch.randn(size, latents), torch.randn(size), 0.2 + variance)


def total(p, x):
    return float(log_likelihood(p, x).sum())


@both_kinds
def test_the_likelihood_is_that_of_one_large_normal(common):
    p = some_parameters(common=common)
    x = torch.randn(4, 5)
    covariance = p.loadings @ p.loadings.T + torch.diag(p.variance.expand(5))
    expected = dist.MultivariateNormal(p.mean, covariance).log_prob(x)
    torch.testing.assert_close(log_likelihood(p, x), expected, rtol=0, atol=1e-12)


@both_kinds
def test_joint_minus_posterior_is_the_likelihood_at_every_draw(common):
    x = torch.randn(6, 5)
    kwargs = {"latents": 2, "common": common}
    poutine.trace(factor_analysis.model).get_trace(x, **kwargs)
    p = factor_analysis.current_parameters()
    for _ in range(3):
        guide = poutine.trace(factor_analysis.exact_guide).get_trace(x, **kwargs)
        model = poutine.trace(poutine.replay(factor_analysis.model, guide)).get_trace(x, **kwargs)
        for trace in (model, guide):
            trace.compute_log_prob()
        joint = model.nodes["z"]["log_prob"] + model.nodes["x"]["log_prob"]
        found = (joint - guide.nodes["z"]["log_prob"]).detach()
        torch.testing.assert_close(found, log_likelihood(p, x), rtol=0, atol=1e-10)


@both_kinds
def test_em_steps_have_the_gradient_of_the_likelihood_and_maximise(common):
    # A step is the maximum of the expected complete log-likelihood: its gradient there is zero.
    p = some_parameters(common=common)
    x = torch.randn(30, 5) @ torch.randn(5, 5)
    mean, covariance = factor_analysis.posterior(p, x)

    def expected_complete(q):
        left = x - mean @ q.loadings.T - q.mean
        spread = ((q.loadings @ covariance) * q.loadings).sum(-1)
        variance = q.variance.expand(5)
        return -0.5 * (variance.log() + (left**2 + spread) / variance).sum()

    def gradients(function, q):
        leaves = [v.clone().requires_grad_() for v in (q.loadings, q.mean, q.variance)]
        return torch.autograd.grad(function(Parameters(*leaves)), leaves)

    # Fisher's identity: at p itself the gradient is the likelihood's, given the same E-step.
    slopes = gradients(lambda q: log_likelihood(q, x).sum(), p)
    for found, expected in zip(gradients(expected_complete, p), slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        assert float(expected.abs().max()) > 1
    for left in gradients(expected_complete, factor_analysis.em_step(p, x)):
        assert float(left.abs().max()) < 1e-9


@both_kinds
def test_em_climbs_from_random_starts_to_the_same_maximum(common):
    x = factor_analysis.data()
    best = factor_analysis.maximum(x)
    if common:
        best = factor_analysis.principal_components(x)
    for seed in range(3):
        torch.manual_seed(seed)
        p = factor_analysis.random_start(x, common=common)
        history = [total(p, x)]
        for _ in range(200):
            p = factor_analysis.em_step(p, x)
            history.append(total(p, x))
        assert all(b >= a - 1e-9 for a, b in itertools.pairwise(history))
        assert history[-1] == pytest.approx(total(best, x), abs=1e-6)
        assert history[-1] - history[0] > 100
        products = [q.loadings @ q.loadings.T for q in (p, best)]
        torch.testing.assert_close(*products, rtol=0, atol=1e-4)
        torch.testing.assert_close(p.variance, best.variance, rtol=0, atol=1e-4)


@both_kinds
def test_the_maximum_is_stationary_and_its_neighbours_are_not(common):
    x = factor_analysis.data()
    p = factor_analysis.principal_components(x) if common else factor_analysis.maximum(x)
    leaves = [v.clone().requires_grad_() for v in (p.loadings, p.mean, p.variance)]

    def steepest():
        grads = torch.autograd.grad(log_likelihood(Parameters(*leaves), x).sum(), leaves)
        return [float(g.abs().max()) for g in grads]

    assert max(steepest()) < (1e-9 if common else 1e-3)
    with torch.no_grad():
        for leaf in leaves:
            leaf.add_(0.05)
    assert min(steepest()) > 1


def test_scikit_learn_finds_the_same_maxima():
    x = factor_analysis.data()
    found = FactorAnalysis(2, tol=1e-9, max_iter=2000, svd_method="lapack").fit(x.numpy())
    best = factor_analysis.maximum(x)
    assert total(best, x) == pytest.approx(found.score(x.numpy()) * len(x), abs=1e-6)
    torch.testing.assert_close(
        best.variance, torch.as_tensor(found.noise_variance_), rtol=0, atol=1e-4
    )
    closed = factor_analysis.principal_components(x)
    # The score of a PCA is that of probabilistic PCA with the covariance over N - 1.
    pca = PCA(2).fit(x.numpy())
    ratio = (len(x) - 1) / len(x)
    assert float(closed.variance) == pytest.approx(pca.noise_variance_ * ratio, rel=1e-10)
    assert total(closed, x) < total(best, x) - 10


def test_factors_may_have_dimensions_of_their_own():
    for common in (False, True):
        pyro.clear_param_store()
        with torch.no_grad():
            check_left_dimensions(
                factor_analysis.model, (torch.randn(4, 5), 2), nesting=1, kwargs={"common": common}
            )


def test_minibatches_see_their_own_rows():
    x = factor_analysis.data()
    trace = poutine.trace(factor_analysis.model).get_trace(x, 3, 20)
    index = trace.nodes["data"]["value"]
    assert trace.nodes["z"]["value"].shape == (20, 3)
    assert torch.equal(trace.nodes["x"]["value"], x[index])


def test_bad_numbers_are_refused():
    x = factor_analysis.data()
    with pytest.raises(ValueError, match="latents must be from 1 to 12, got 13"):
        factor_analysis.principal_components(x, 13)
    with pytest.raises(RuntimeError, match="EM still gains after 2 steps"):
        factor_analysis.maximum(x, max_steps=2)
