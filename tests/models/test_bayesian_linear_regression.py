"""Regression with unknown noise: closed forms against other densities, integrals and optima."""

import dataclasses
import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate, stats

from models import bayesian_linear_regression as regression
from models import bayesian_linear_regression_updates as updates
from tests.left_dimensions import check_left_dimensions

A, B, K = regression.CONCENTRATION, regression.RATE, regression.SHRINKAGE
both_priors = pytest.mark.parametrize("conjugate", [True, False])
both_shapes = pytest.mark.parametrize("independent", [True, False])


def small():
    x, y = regression.data(3)
    return x[:12], y[:12]


def log_density_of_y(tau, *, conjugate, x, y):
    """``log p(y | tau)`` as one multivariate normal, w integrated out."""
    spread = x @ x.T / (K * tau if conjugate else K)
    covariance = spread.numpy() + torch.eye(len(y)).numpy() / tau
    return stats.multivariate_normal.logpdf(y.numpy(), cov=covariance)


def quadrature(x, y, *, conjugate):
    """Log evidence, mean and sd of tau by adaptive quadrature."""

    def density(u, power):
        tau = math.exp(u)
        log_p = log_density_of_y(tau, conjugate=conjugate, x=x, y=y)
        return tau**power * math.exp(log_p + stats.gamma.logpdf(tau, A, scale=1 / B) + u + 20)

    mass, first, second = (
        integrate.quad(density, -6, 5, args=(k,), epsabs=1e-14, epsrel=1e-11, limit=200)[0]
        for k in range(3)
    )
    mean = first / mass
    return math.log(mass) - 20, mean, math.sqrt(second / mass - mean**2)


def test_evidence_and_moments_of_tau_agree_with_quadrature_of_multivariate_normals():
    x, y = small()
    log_evidence, mean, sd = quadrature(x, y, conjugate=True)
    found = regression.posterior(x, y)
    assert found.log_evidence == pytest.approx(log_evidence, abs=1e-8)
    assert float(found.concentration / found.rate) == pytest.approx(mean, abs=1e-8)
    assert math.sqrt(found.concentration) / float(found.rate) == pytest.approx(sd, abs=1e-8)

    log_evidence, mean, sd = quadrature(x, y, conjugate=False)
    moments, found_evidence = regression.semi_conjugate_posterior(x, y)
    assert found_evidence == pytest.approx(log_evidence, abs=1e-8)
    assert float(moments["tau"].mean) == pytest.approx(mean, abs=1e-8)
    assert float(moments["tau"].sd) == pytest.approx(sd, abs=1e-8)


def test_the_exact_guide_weighs_the_evidence_at_every_draw():
    case = regression.problem()
    for _ in range(5):
        guide = poutine.trace(case.exact_guide).get_trace(*case.args)
        model = poutine.trace(poutine.replay(case.model, guide)).get_trace(*case.args)
        weight = float(model.log_prob_sum() - guide.log_prob_sum())
        assert weight == pytest.approx(case.log_evidence, abs=1e-9)


def test_the_moments_of_w_are_those_of_its_t_distribution():
    case = regression.problem(columns=2)
    exact = regression.posterior(*case.args)
    shape = exact.rate / exact.concentration * exact.precision.inverse()
    t = stats.multivariate_t(exact.mean.numpy(), shape.numpy(), df=2 * exact.concentration)
    for j in range(2):
        sd = case.reference["w"].sd[j].item()
        one = stats.t(2 * exact.concentration, t.loc[j], math.sqrt(t.shape[j, j]))
        assert sd == pytest.approx(one.std(), abs=1e-12)


def test_moments_of_w_of_the_semi_conjugate_model_agree_with_another_route():
    # By importance weights that are exact: the grid of tau, and a solve instead of eigenvectors.
    x, y = small()
    moments, _ = regression.semi_conjugate_posterior(x, y)
    log_tau = torch.linspace(-6, 5, 1101)
    rows = []
    for tau in log_tau.exp():
        log_p = log_density_of_y(float(tau), conjugate=False, x=x, y=y)
        covariance = torch.linalg.inv(tau * x.T @ x + K * torch.eye(3))
        mean = covariance @ (tau * x.T @ y)
        prior = stats.gamma.logpdf(float(tau), A, scale=1 / B) + float(tau.log())
        rows.append((log_p + prior, mean, covariance.diagonal()))
    weight = torch.tensor([row[0] for row in rows]).softmax(0)
    means, variances = (torch.stack([row[i] for row in rows]) for i in (1, 2))
    mean = weight @ means
    sd = (weight @ (variances + (means - mean) ** 2)).sqrt()
    torch.testing.assert_close(moments["w"].mean, mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(moments["w"].sd, sd, rtol=0, atol=1e-9)


def test_a_coarser_grid_gives_the_same():
    x, y = regression.data()
    fine, fine_evidence = regression.semi_conjugate_posterior(x, y)
    coarse, coarse_evidence = regression.semi_conjugate_posterior(x, y, step=0.02)
    assert fine_evidence == pytest.approx(coarse_evidence, abs=1e-9)
    for site in ("tau", "w"):
        torch.testing.assert_close(fine[site].mean, coarse[site].mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(fine[site].sd, coarse[site].sd, rtol=0, atol=1e-10)


def some_factors(x, *, independent):
    size = x.shape[-1]
    root = torch.randn(size, size)
    covariance = 0.1 * (root @ root.T + torch.eye(size))
    if independent:
        covariance = torch.diag(covariance.diagonal())
    return updates.Factors(
        torch.randn(size), covariance, torch.tensor(3.0).exp(), torch.tensor(2.5).exp()
    )


@both_priors
def test_the_bound_is_that_of_many_draws(conjugate):
    x, y = small()
    q = some_factors(x, independent=False)
    draws = 200_000
    tau = dist.Gamma(q.concentration, q.rate).sample((draws,))
    normal = dist.MultivariateNormal(q.mean, q.covariance)
    w = normal.sample((draws,))
    scale = (K * tau).rsqrt() if conjugate else torch.full_like(tau, K**-0.5)
    log_w = (
        dist.Gamma(A, B).log_prob(tau)
        + dist.Normal(0, scale[:, None]).log_prob(w).sum(-1)
        + dist.Normal(w @ x.T, tau.rsqrt()[:, None]).log_prob(y).sum(-1)
        - dist.Gamma(q.concentration, q.rate).log_prob(tau)
        - normal.log_prob(w)
    )
    error = float(log_w.std()) / math.sqrt(draws)
    exact = float(updates.elbo(q, x, y, conjugate=conjugate))
    assert abs(float(log_w.mean()) - exact) < 4 * error
    assert error < 0.01 * abs(exact)


@both_priors
@both_shapes
def test_every_update_is_a_maximum_over_its_factor(conjugate, independent):
    x, y = small()
    q = some_factors(x, independent=independent)
    kind = {"conjugate": conjugate}

    def steepest(q):
        mean, rate, concentration = (
            v.clone().requires_grad_() for v in (q.mean, q.rate, q.concentration)
        )
        spread = (q.covariance.diagonal() if independent else q.covariance).clone()
        spread.requires_grad_()
        covariance = torch.diag(spread) if independent else spread
        bound = updates.elbo(updates.Factors(mean, covariance, concentration, rate), x, y, **kind)
        grads = torch.autograd.grad(bound, [mean, spread, concentration, rate])
        return [float(g.abs().max()) for g in grads]

    before = steepest(q)
    assert min(before) > 1e-2
    after_w = updates.update_w(q, x, y, independent=independent, **kind)
    assert max(steepest(after_w)[:2]) < 1e-8
    after_tau = updates.update_tau(q, x, y, **kind)
    assert max(steepest(after_tau)[2:]) < 1e-8
    values = [float(updates.elbo(f, x, y, **kind)) for f in (q, after_w, after_tau)]
    assert values[0] < min(values[1:])


@both_priors
@both_shapes
def test_sweeps_climb_to_a_fixed_point_below_the_evidence(conjugate, independent):
    x, y = regression.data()
    kind = {"conjugate": conjugate, "independent": independent}
    q = updates.start(x)
    bounds = []
    for _ in range(20):
        q = updates.coordinate_updates(q, x, y, **kind)
        bounds.append(float(updates.elbo(q, x, y, conjugate=conjugate)))
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(bounds))
    fixed = updates.fixed_point(x, y, **kind)
    again = updates.coordinate_updates(fixed, x, y, **kind)
    for field in dataclasses.fields(fixed):
        before, after = getattr(fixed, field.name), getattr(again, field.name)
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
    case = regression.problem() if conjugate else regression.semi_conjugate_problem()
    gap = case.log_evidence - float(updates.elbo(fixed, x, y, conjugate=conjugate))
    assert gap == pytest.approx(case.log_evidence - bounds[-1], abs=1e-9)
    assert (3 < gap < 5) if independent else (0 < gap < 0.05)


@both_shapes
def test_the_closed_fixed_point_of_the_conjugate_model(independent):
    x, y = regression.data()
    closed = updates.conjugate_fixed_point(x, y, independent=independent)
    found = updates.fixed_point(x, y, conjugate=True, independent=independent)
    begin = updates.start(x)
    for name in ("mean", "covariance", "concentration", "rate"):
        wanted = getattr(closed, name)
        torch.testing.assert_close(getattr(found, name), wanted, rtol=1e-10, atol=1e-10)
        assert float((getattr(begin, name) - wanted).abs().max()) > 1e-2
    exact = regression.posterior(x, y)
    tau = float(closed.concentration / closed.rate)
    assert tau == pytest.approx(float(exact.concentration / exact.rate), rel=1e-12)
    # Mean field understates what it does not couple: the variance of tau.
    assert closed.concentration > exact.concentration


@pytest.mark.parametrize("model", [regression.model, regression.semi_conjugate_model])
def test_latents_may_have_dimensions_of_their_own(model):
    check_left_dimensions(model, small(), nesting=1)


def test_minibatches_see_their_own_rows():
    x, y = small()
    pyro.set_rng_seed(3)
    trace = poutine.trace(regression.model).get_trace(x, y, subsample_size=5)
    index = trace.nodes["data"]["value"]
    assert torch.equal(trace.nodes["y"]["value"], y[index])
    w, tau = (trace.nodes[n]["value"] for n in ("w", "tau"))
    expected = dist.Normal(x[index] @ w, tau.rsqrt()).log_prob(y[index]).sum() * len(y) / 5
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["y"]["log_prob_sum"], expected)


@pytest.mark.parametrize("columns", [0, 11])
def test_columns_that_are_not_there_are_refused(columns):
    with pytest.raises(ValueError, match=f"columns must be from 1 to 10, got {columns}"):
        regression.data(columns)


def test_a_fixed_point_that_cannot_be_reached_says_so():
    x, y = small()
    with pytest.raises(RuntimeError, match="after 3 sweeps; choose a larger tolerance"):
        updates.fixed_point(x, y, conjugate=False, tolerance=-1.0, max_sweeps=3)
