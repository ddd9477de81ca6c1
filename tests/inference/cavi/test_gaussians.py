"""Gaussian models: factor analysis, regression, pairs; what mean field makes of correlations."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Normal
from pyro_klmodes.inference.cavi import CAVI
from tests.inference.cavi.helpers import assert_monotone, prepared

K = 2


def factor_analysis(x):
    """Loadings and noise precisions of features, factors of data."""
    N, D = x.shape
    with pyro.plate("features", D, dim=-1):
        w = pyro.sample("w", dist.Normal(torch.zeros(K), 1.0).to_event(1))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", N, dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(K), 1.0).to_event(1))
        with pyro.plate("entries", D, dim=-1):
            pyro.sample("x", dist.Normal((w * z).sum(-1), tau.rsqrt()), obs=x)


def shared_noise(x):
    """The same with one precision, and a product of matrices."""
    N, D = x.shape
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("features", D):
        w = pyro.sample("w", dist.Normal(torch.zeros(K), 1.0).to_event(1))
    with pyro.plate("data", N):
        z = pyro.sample("z", dist.Normal(torch.zeros(K), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ w.mT, tau.rsqrt()).to_event(1), obs=x)


def factors(size=40, features=4):
    loadings = torch.randn(features, K)
    return torch.randn(size, K) @ loadings.T + 0.5 * torch.randn(size, features)


def second(q):
    """E[v v'] of normal vectors."""
    covariance = q["scale_tril"] @ q["scale_tril"].mT
    return q["loc"][..., None] * q["loc"][..., None, :] + covariance


def solved(precision, first):
    return torch.linalg.solve(precision, first[..., None])[..., 0]


def covariance(q):
    return q["scale_tril"] @ q["scale_tril"].mT


def flat(params):
    """The factors without the dimension of the other plate."""
    N = params["z"]["loc"].shape[0]
    z = {
        "loc": params["z"]["loc"].reshape(N, K),
        "scale_tril": params["z"]["scale_tril"].reshape(N, K, K),
    }
    return {**params, "z": z}


@pytest.mark.parametrize("model", [factor_analysis, shared_noise])
def test_factor_analysis(model):
    x = factors()
    N, D = x.shape
    shared = model is shared_noise
    with prepared(model, None, x) as ready:
        sweeper = ready.sweeper
        assert ready.plan.report.conjugate
        for _ in range(3):
            q = flat(sweeper.params)
            tau = (q["tau"]["concentration"] / q["tau"]["rate"]).expand(D)
            sweeper.sweep(sites=["w"])
            q = flat(sweeper.params)
            precision = torch.eye(K) + tau[:, None, None] * second(q["z"]).sum(0)
            first = tau[:, None] * (x.T @ q["z"]["loc"])
            assert torch.allclose(q["w"]["loc"], solved(precision, first), rtol=1e-8)
            assert torch.allclose(covariance(q["w"]), precision.inverse(), rtol=1e-8, atol=1e-12)
            sweeper.sweep(sites=["z"])
            q = flat(sweeper.params)
            precision = torch.eye(K) + (tau[:, None, None] * second(q["w"])).sum(0)
            first = x @ (tau[:, None] * q["w"]["loc"])
            assert torch.allclose(q["z"]["loc"], solved(precision, first), rtol=1e-8)
            assert torch.allclose(covariance(q["z"])[0], precision.inverse(), rtol=1e-8)
            sweeper.sweep(sites=["tau"])
            q = flat(sweeper.params)
            fitted = q["z"]["loc"] @ q["w"]["loc"].T
            products = torch.einsum("nij,dij->nd", second(q["z"]), second(q["w"]))
            squares = x.square() - 2 * x * fitted + products
            size, total = (N * D, squares.sum()) if shared else (N, squares.sum(0))
            expected = torch.full_like(q["tau"]["concentration"], 2 + size / 2)
            assert torch.allclose(q["tau"]["concentration"], expected, rtol=1e-8)
            assert torch.allclose(q["tau"]["rate"], 1 + total / 2, rtol=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_the_elbo_of_factor_analysis_never_falls(seed):
    generator = torch.Generator().manual_seed(seed)
    size, features = torch.randint(1, 12, (2,), generator=generator).tolist()
    x = torch.randn(size, features, generator=generator)
    result = CAVI(factor_analysis).fit(x, seed=seed, steps=12)
    assert_monotone(result)


PRECISION = torch.tensor([[2.0, 1.6], [1.6, 3.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)


def as_a_vector():
    pyro.sample("x", dist.MultivariateNormal(MEAN, precision_matrix=PRECISION))


def as_two_sites():
    a = pyro.sample("a", dist.Normal(MEAN[0], PRECISION.inverse()[0, 0].sqrt()))
    slope = -PRECISION[0, 1] / PRECISION[1, 1]
    pyro.sample("b", dist.Normal(MEAN[1] + slope * (a - MEAN[0]), PRECISION[1, 1].rsqrt()))


def as_a_plate():
    with pyro.plate("entries", 2):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
    away = x - MEAN
    quadratic = torch.einsum("...i,ij,...j->...", away, PRECISION, away)
    normal = 0.5 * (x * x).sum(-1)
    pyro.factor("pair", normal - 0.5 * quadratic)


def test_mean_field_has_the_inverse_of_the_diagonal_of_the_precision():
    expected = PRECISION.diagonal().rsqrt()
    for model in (as_a_vector, as_a_plate):
        result = CAVI(model, AutoMeanField(model, families={"x": Normal()})).fit()
        q = result.site_params["x"]
        assert torch.allclose(q["loc"], MEAN, atol=1e-12)
        assert torch.allclose(q["scale"], expected, rtol=1e-12)
        assert result.steps <= 3  # all entries are updated jointly
    result = CAVI(as_two_sites).fit(tolerance=1e-12)
    for i, name in enumerate("ab"):
        assert torch.allclose(result.site_params[name]["loc"], MEAN[i], atol=1e-9)
        assert torch.allclose(result.site_params[name]["scale"], expected[i], rtol=1e-12)


def test_a_vector_gets_its_full_covariance_and_the_elbo_is_the_evidence():
    result = CAVI(as_a_vector).fit()
    q = result.site_params["x"]
    assert torch.allclose(covariance(q), PRECISION.inverse(), rtol=1e-10)
    assert abs(result.elbos[-1]) < 1e-12  # a prior has the evidence one

    def regression(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(X @ w, 0.5), obs=y)

    X, y = torch.randn(10, 3), torch.randn(10)
    result = CAVI(regression).fit(X, y)
    evidence = dist.MultivariateNormal(torch.zeros(10), 4 * X @ X.T + 0.25 * torch.eye(10))
    assert float(result.elbos[-1]) == pytest.approx(float(evidence.log_prob(y)), rel=1e-10)


def test_positive_sites_with_normals_in_unconstrained_space():
    # log x is normal, and so is the posterior of log x: conjugate for LogNormal
    def model(y):
        x = pyro.sample("x", dist.LogNormal(0.3, 0.8))
        pyro.sample("y", dist.LogNormal(x.log(), 0.5), obs=y)

    result = CAVI(model, AutoMeanField(model)).fit(torch.tensor(2.0))
    precision = 0.8**-2 + 0.5**-2
    loc = (0.3 * 0.8**-2 + torch.tensor(2.0).log() * 0.5**-2) / precision
    assert result.conjugacy["x"].conjugate
    assert torch.allclose(result.site_params["x"]["loc"], loc, rtol=1e-10)
    assert torch.allclose(result.site_params["x"]["scale"], torch.tensor(precision).rsqrt())
    marginal = dist.LogNormal(0.3, (0.8**2 + 0.5**2) ** 0.5).log_prob(torch.tensor(2.0))
    assert float(result.elbos[-1]) == pytest.approx(float(marginal), rel=1e-10)
