"""Bayesian factor analysis: updates are maxima of a bound that is the model's own."""

import dataclasses
import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from models import bayesian_factor_analysis as factors
from models import bayesian_factor_analysis_updates as updates
from models import factor_analysis
from tests.left_dimensions import check_left_dimensions, log_joint

both_shapes = pytest.mark.parametrize("independent", [True, False])
FIELDS = {
    "z": ("z", "z_covariance"),
    "loadings": ("loadings", "loadings_covariance"),
    "mean": ("mean", "mean_variance"),
    "tau": ("concentration", "rate"),
}


def some_factors(x, latents=2):
    """Nothing at its best, nothing independent."""
    torch.manual_seed(4)
    number, size = x.shape

    def spread(*rows):
        root = 0.5 * torch.randn(*rows, latents, latents)
        return root @ root.mT + 0.2 * torch.eye(latents)

    return updates.Factors(
        torch.randn(number, latents),
        spread(),
        torch.randn(size, latents),
        spread(size),
        torch.randn(size),
        0.1 + torch.rand(size),
        3 + torch.rand(size),
        1 + torch.rand(size),
    )


def test_the_bound_is_that_of_many_draws_of_the_model():
    x = factors.simulate(num_data=3, features=2)[0]
    q = some_factors(x)
    draws = 40_000
    q_sites = {
        "z": dist.MultivariateNormal(q.z[:, None], q.z_covariance),  # (N, 1)
        "loadings": dist.MultivariateNormal(q.loadings, q.loadings_covariance),
        "mean": dist.Normal(q.mean, q.mean_variance.sqrt()),
        "tau": dist.Gamma(q.concentration, q.rate),
    }
    values, log_q = {}, torch.zeros(draws)
    for name, fn in q_sites.items():
        drawn = fn.sample((draws,))
        log_q = log_q + fn.log_prob(drawn).reshape(draws, -1).sum(-1)
        # Draws are left of both plates.
        values[name] = drawn if name == "z" else drawn[:, None]
    log_w = log_joint(factors.model, (x,), {}, values, 2) - log_q
    error = float(log_w.std()) / math.sqrt(draws)
    exact = float(updates.elbo(q, x))
    assert abs(float(log_w.mean()) - exact) < 4 * error
    assert error < 0.01 * abs(exact)


@both_shapes
@pytest.mark.parametrize("site", updates.SITES)
def test_every_update_is_a_maximum_over_its_factor(site, independent):
    x = factors.simulate(num_data=8, features=4)[0]
    q = some_factors(x)
    if independent:
        q = dataclasses.replace(
            q,
            **{
                name: torch.diag_embed(getattr(q, name).diagonal(dim1=-2, dim2=-1))
                for name in ("z_covariance", "loadings_covariance")
            },
        )

    def steepest(q):
        leaves = [getattr(q, name).clone().requires_grad_() for name in FIELDS[site]]
        held = dataclasses.replace(q, **dict(zip(FIELDS[site], leaves, strict=True)))
        grads = torch.autograd.grad(updates.elbo(held, x), leaves)
        if independent and site in ("z", "loadings"):
            grads = (grads[0], grads[1].diagonal(dim1=-2, dim2=-1))
        return [float(g.abs().max()) for g in grads]

    assert min(steepest(q)) > 1e-1
    step = getattr(updates, f"update_{site}")
    options = {"independent": independent} if site in ("z", "loadings") else {}
    after = step(q, x, **options)
    assert max(steepest(after)) < 1e-10
    assert updates.elbo(after, x) > updates.elbo(q, x) + 0.1
    others = {f.name for f in dataclasses.fields(q)} - set(FIELDS[site])
    for name in others:
        assert getattr(after, name) is getattr(q, name)


def test_independent_entries_are_what_entry_after_entry_converges_to():
    x = factors.simulate(num_data=8, features=4)[0]
    q = some_factors(x)
    after = updates.update_z(q, x, independent=True)
    t = q.concentration / q.rate
    squares = q.loadings[:, :, None] * q.loadings[:, None] + q.loadings_covariance
    precision = torch.eye(2) + (t[:, None, None] * squares).sum(0)
    linear = ((x - q.mean) * t) @ q.loadings
    z = q.z.clone()
    for _ in range(200):
        for k in range(2):
            others = z @ precision[:, k] - z[:, k] * precision[k, k]
            z[:, k] = (linear[:, k] - others) / precision[k, k]
    assert float((q.z - z).abs().max()) > 0.1
    torch.testing.assert_close(after.z, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(after.z_covariance, torch.diag(1 / precision.diagonal()))


@both_shapes
def test_sweeps_climb_and_settle(independent):
    x, loadings = factors.simulate()
    q = updates.random_start(x)
    bounds = [float(updates.elbo(q, x))]
    for _ in range(300):
        q = updates.coordinate_updates(q, x, independent=independent)
        bounds.append(float(updates.elbo(q, x)))
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(bounds))
    assert bounds[-1] - bounds[0] > 100
    assert bounds[-1] - bounds[-2] < 1e-4
    # The signal is found, up to the rotation of the factors: noise has the variance 1/4.
    found, true = (w @ w.T for w in (q.loadings, loadings))
    assert float((found - true).abs().max()) < 0.35 * float(true.abs().max())
    precision = q.concentration / q.rate
    assert ((precision > 2) & (precision < 7)).all()


def test_the_bound_is_below_the_evidence_with_one_datum_and_one_feature():
    # p(x) by quadrature: x | w, tau ~ Normal(0, w^2 + 1/B + 1/tau), K = 1.
    x = torch.tensor([[1.7]])
    w = torch.linspace(-8, 8, 801)[:, None]
    u = torch.linspace(-14, 5, 951)
    tau = u.exp()
    variance = w**2 / 1.0 + 1 / factors.MEAN_PRECISION + 1 / tau
    log_p = (
        dist.Normal(0.0, factors.LOADING_PRECISION**-0.5).log_prob(w)
        + dist.Gamma(factors.CONCENTRATION, factors.RATE).log_prob(tau)
        + u
        + dist.Normal(0.0, variance.sqrt()).log_prob(x)
    )
    evidence = float(log_p.logsumexp((0, 1)) + math.log(16 / 800) + math.log(19 / 950))
    q = updates.random_start(x, latents=1)
    for _ in range(500):
        q = updates.coordinate_updates(q, x)
    assert 0.01 < evidence - float(updates.elbo(q, x)) < 0.6


def test_latents_may_have_dimensions_of_their_own():
    x = factors.simulate(num_data=4, features=3)[0]
    check_left_dimensions(factors.model, (x,), nesting=2)


def test_minibatches_see_their_own_rows_and_the_wines_fit():
    x = factor_analysis.data()
    trace = poutine.trace(factors.model).get_trace(x, 3, 20)
    index = trace.nodes["data"]["value"]
    assert trace.nodes["z"]["value"].shape == (20, 1, 3)
    assert trace.nodes["loadings"]["value"].shape == (13, 3)
    assert torch.equal(trace.nodes["x"]["value"], x[index])
