"""Topics, chains, images, regressions that are not conjugate; masks, scales and missing pieces."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.optimize import minimize

from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Normal
from pyro_klmodes.inference.cavi import CAVI
from tests.inference.cavi.helpers import assert_monotone, prepared

K, V = 2, 5


def topics(words):
    """Latent Dirichlet allocation; words of every document in a row."""
    documents, length = words.shape
    with pyro.plate("topics", K):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((V,), 0.5)))
    with pyro.plate("documents", documents, dim=-2):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((K,), 0.7)))
        with pyro.plate("words", length, dim=-1):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("word", dist.Categorical(phi[z]), obs=words)


def test_topics():
    words = torch.randint(V, (6, 9))
    one_hot = torch.nn.functional.one_hot(words, V).to(torch.get_default_dtype())
    with prepared(topics, None, words) as ready:
        q, sweeper = ready.sweeper.params, ready.sweeper
        assert ready.plan.report.conjugate
        for _ in range(2):
            r = q["z"]["logits"].softmax(-1)
            sweeper.sweep(sites=["phi", "theta"])
            expected = 0.5 + torch.einsum("dlk,dlv->kv", r, one_hot)
            assert torch.allclose(q["phi"]["concentration"], expected, rtol=1e-9)
            assert torch.allclose(q["theta"]["concentration"][:, 0], 0.7 + r.sum(1), rtol=1e-9)
            sweeper.sweep(sites=["z"])
            log_phi = q["phi"]["concentration"].digamma()
            log_phi = log_phi - q["phi"]["concentration"].sum(-1, keepdim=True).digamma()
            log_r = q["theta"]["concentration"].digamma() + log_phi[:, words].movedim(0, -1)
            assert torch.allclose(q["z"]["logits"].softmax(-1), log_r.softmax(-1), rtol=1e-9)


def logistic(X, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)


def in_a_plate(X, y):
    with pyro.plate("features", 2):
        w = pyro.sample("w", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=X @ w), obs=y)


def best_mean_field(X, y):
    """Minus the ELBO by quadrature over every linear predictor, which is normal by itself."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def loss(v):
        m, s = v[:2], np.exp(v[2:])
        eta = (X @ m)[:, None] + np.sqrt(X**2 @ s**2)[:, None] * nodes
        likelihood = (weights * (y[:, None] * eta - np.logaddexp(0, eta))).sum()
        prior = (-0.5 * (m**2 + s**2) / 4 - np.log(2) - 0.5 * np.log(2 * np.pi)).sum()
        return -(likelihood + prior + (np.log(s) + 0.5 * np.log(2 * np.pi * np.e)).sum())

    return minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})


@pytest.mark.parametrize("model", [logistic, in_a_plate])
def test_logistic_regression_reaches_the_best_mean_field(model):
    X = torch.randn(60, 2)
    X[:, 1] += X[:, 0]
    y = dist.Bernoulli(logits=X @ torch.tensor([1.0, -1.5])).sample()
    guide = AutoMeanField(model)
    result = CAVI(model, guide).fit(X, y)
    best = best_mean_field(X.numpy(), y.numpy())
    q = result.site_params["w"]
    assert result.converged
    assert not result.conjugacy.conjugate
    assert_monotone(result)
    assert torch.allclose(q["loc"], torch.as_tensor(best.x[:2]), atol=1e-5)
    assert torch.allclose(q["scale"], torch.as_tensor(best.x[2:]).exp(), atol=1e-5)
    assert float(result.losses[-1]) == pytest.approx(best.fun, abs=1e-6)
    assert float(result.losses[0]) > best.fun + 1e-3


def test_many_coefficients_are_integrated_over_quasi_random_points():
    def model(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson((X @ w).exp()), obs=y)

    X = 0.5 * torch.randn(80, 6)
    y = dist.Poisson((X @ torch.linspace(-1, 1, 6)).exp()).sample()
    result = CAVI(model).fit(X, y)
    q = result.site_params["w"]
    # E exp(x'w) is known: the stationary point of the exact ELBO
    rates = (X @ q["loc"] + 0.5 * X.square() @ q["scale"].square()).exp()
    gradient = X.T @ (y - rates) - q["loc"]
    precision = 1 + X.square().T @ rates
    assert gradient.abs().max() < 0.3 * q["scale"].min()  # a small part of a standard deviation
    assert torch.allclose(q["scale"], precision.rsqrt(), rtol=0.02)
    start = X.T @ (y - 1)
    assert start.abs().max() > 5 * gradient.abs().max()
    assert_monotone(result)


def image(seen, coupling=0.8):
    rows, columns = seen.shape
    with pyro.plate("rows", rows, dim=-2), pyro.plate("columns", columns, dim=-1):
        s = pyro.sample("s", dist.Bernoulli(0.5))
        x = 2 * s - 1
        pyro.sample("seen", dist.Normal(x, 1.0), obs=seen)
    vertical = (x[..., 1:, :] * x[..., :-1, :]).sum((-1, -2))
    horizontal = (x[..., :, 1:] * x[..., :, :-1]).sum((-1, -2))
    pyro.factor("pairs", coupling * (vertical + horizontal))


@pytest.mark.parametrize("coupling", [0.3, 2.0])
def test_an_image_reaches_a_fixed_point_of_mean_field(coupling):
    seen = torch.ones(8, 9)
    seen[2:6, 3:7] = -1
    seen = seen + torch.randn(8, 9)
    result = CAVI(image).fit(seen, coupling=coupling, tolerance=1e-9)
    assert result.converged
    assert_monotone(result)
    mean = (0.5 * result.site_params["s"]["logits"]).tanh()
    field = torch.zeros_like(mean)
    field[1:] += mean[:-1]
    field[:-1] += mean[1:]
    field[:, 1:] += mean[:, :-1]
    field[:, :-1] += mean[:, 1:]
    assert torch.allclose(mean, (seen + coupling * field).tanh(), atol=1e-7)


def test_a_chain_of_discrete_sites():
    rows = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    y = torch.tensor([0.2, 1.7, 2.2, 0.1])

    def model(y):
        z = torch.tensor(0)
        for t in range(len(y)):
            z = pyro.sample(f"z{t}", dist.Categorical(rows[z]))
            pyro.sample(f"y{t}", dist.Normal(2.0 * z, 1.0), obs=y[t])

    result = CAVI(model).fit(y, tolerance=1e-10)
    assert_monotone(result)
    p = [result.site_params[f"z{t}"]["logits"].softmax(-1) for t in range(4)]
    likelihood = dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(y[:, None])
    for t in range(4):
        before = rows.log()[0] if t == 0 else p[t - 1] @ rows.log()
        after = rows.log() @ p[t + 1] if t < 3 else 0.0
        expected = (before + after + likelihood[t]).softmax(-1)
        assert torch.allclose(p[t], expected, atol=1e-8)


def test_impossible_states_keep_the_probability_zero():
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])

    def model(y):
        a = pyro.sample("a", dist.Categorical(logits=rows[0].log()))
        b = pyro.sample("b", dist.Categorical(logits=rows[a].log()))
        pyro.sample("y", dist.Normal(b.to(y.dtype), 0.5), obs=y)

    result = CAVI(model).fit(torch.tensor(0.1))
    assert result.converged
    p = result.site_params["a"]["logits"].softmax(-1)
    assert float(p[2]) == 0.0
    assert bool(torch.isfinite(result.elbos[-1]))


def test_masks_and_scales():
    y = torch.tensor([1.0, 2.0, 7.0])
    mask = torch.tensor([True, True, False])

    def masked(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3), poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def short(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    a, b = CAVI(masked).fit(y, tolerance=1e-12), CAVI(short).fit(y[:2], tolerance=1e-12)
    assert float(a.elbos[-1]) == pytest.approx(float(b.elbos[-1]), rel=1e-10)
    assert torch.allclose(a.site_params["mu"]["loc"], b.site_params["mu"]["loc"], atol=1e-8)

    def scaled(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3), poutine.scale(scale=2.5):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    q = CAVI(scaled).fit(y).site_params["mu"]
    assert torch.allclose(q["scale"], torch.tensor(1 + 2.5 * 3).rsqrt(), rtol=1e-10)
    assert torch.allclose(q["loc"], 2.5 * y.sum() / (1 + 2.5 * 3), rtol=1e-10)


def test_beta_and_deterministic_sites():
    def model(y):
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        pyro.deterministic("odds", p / (1 - p))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(p), obs=y)

    y = torch.tensor([1.0, 1.0, 0.0, 1.0])
    result = CAVI(model).fit(y)
    q = result.site_params["p"]
    assert torch.allclose(q["concentration1"], torch.tensor(5.0), rtol=1e-8)
    assert torch.allclose(q["concentration0"], torch.tensor(4.0), rtol=1e-8)
    beta = torch.special.gammaln
    a, b = torch.tensor([5.0, 4.0]), torch.tensor([2.0, 3.0])
    evidence = (beta(a).sum() - beta(a.sum())) - (beta(b).sum() - beta(b.sum()))
    assert float(result.elbos[-1]) == pytest.approx(float(evidence), rel=1e-10)


def test_a_normal_prior_on_a_log_scale_is_integrated_by_quadrature():
    def model(y):
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(0.0, s.exp()), obs=y)

    y = torch.randn(20) * 1.7
    result = CAVI(model, AutoMeanField(model, families={"s": Normal()})).fit(y)
    assert result.conjugacy.others == ["s"]
    m, v = result.site_params["s"]["loc"], result.site_params["s"]["scale"].square()
    # E[exp(-2 s)] is known
    pull = y.square().sum() * (-2 * m + 2 * v).exp()
    assert torch.allclose(-m - 20 + pull, torch.tensor(0.0), atol=1e-5)
    assert torch.allclose(1 / v, 1 + 2 * pull, rtol=1e-6)


def test_single_precision():
    torch.set_default_dtype(torch.float32)
    result = CAVI(topics).fit(torch.randint(V, (6, 9)), steps=30)
    assert result.steps > 3
    assert float(result.elbos.diff().min()) > -1e-3
    assert result.site_params["phi"]["concentration"].dtype == torch.float32
