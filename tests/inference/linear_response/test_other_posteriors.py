"""Posteriors that are not Gaussian: the definition, single sites, and the limit of much data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from models import bayesian_linear_regression as regression
from models.bayesian_gaussian_mixture import Wishart
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Gamma, LogNormal, Normal
from pyro_klmodes.inference.cavi import CAVI
from pyro_klmodes.inference.linear_response import linear_response


def mixture(x, tilt=0.0):
    """All kinds of sites; the tilt is what linear response differentiates by."""
    w = pyro.sample("w", dist.Dirichlet(2 * torch.ones(2)))
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("components", 2):
        m = pyro.sample("m", dist.Normal(torch.tensor([-1.0, 1.0]), 3.0))
    tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
    with pyro.plate("tilted", 1):  # a place for it right of batches
        pyro.factor("tilt", tilt * (m[..., :1] + 2 * tau))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(probs=w))
        b = pyro.sample("b", dist.Bernoulli(p))
        pyro.sample("x", dist.Normal(Vindex(m)[..., z], tau.rsqrt()), obs=x[..., 0])
        pyro.sample("y", dist.Normal(2 * b, tau.rsqrt()), obs=x[..., 1])


def two_groups(size=7):
    generator = torch.Generator().manual_seed(0)
    x = 0.8 * torch.randn(2 * size, 2, generator=generator)
    away = torch.tensor([-1.4, 1.4]).repeat_interleave(size)
    return x + torch.stack([away, 1 + away.roll(3).sign()], -1)  # ones and zeros, times two


@pytest.mark.slow
def test_covariances_are_derivatives_of_means():
    """Fits of tilted models, by central differences: Cov(m_0 + 2 tau, every site)."""
    h, x = 1e-3, two_groups()
    fits = {t: CAVI(mixture).fit(x, t, steps=5000, tolerance=1e-11) for t in (-h, 0.0, h)}
    response = linear_response(fits[0.0])
    low, high = (linear_response(fits[t]).mean for t in (-h, h))
    slopes = torch.cat([((high[n] - low[n]) / (2 * h)).flatten() for n in response.mean])
    rows = dict(zip(response.labels, response.covariance, strict=True))
    expected = rows["m[0]"] + 2 * rows["tau"]
    assert response.distance < 1e-8
    assert expected.abs().min() < 1e-3 < expected.abs().max()
    assert torch.allclose(slopes, expected, rtol=1e-5, atol=1e-7)  # h^2 is left of differences
    assert bool((response.ratio["m"] > 1.03).all())
    states = response.covariance_of("z")
    assert torch.allclose(states.reshape(-1, 14, 2).sum(-1), torch.zeros(28, 14), atol=1e-12)


def single_sites():
    pyro.sample("gamma", dist.Gamma(3.0, 2.0))
    pyro.sample("real", dist.Normal(1.0, 0.3))
    pyro.sample("matrix", Wishart(torch.tensor(5.0), torch.tensor([[2.0, 0.5], [0.5, 1.0]])))
    pyro.sample("coin", dist.Bernoulli(0.3))
    pyro.sample("die", dist.Categorical(torch.tensor([0.1, 0.2, 0.7])))
    pyro.sample("vector", dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.5))


def test_sites_whose_values_are_statistics_are_exact():
    response = linear_response(CAVI(single_sites).fit())
    expected = {
        "gamma": torch.tensor(0.75),
        "real": torch.tensor(0.09),
        # df (V_ij^2 + V_ii V_jj)
        "matrix": 5 * torch.tensor([[8.0, 2.25], [2.25, 2.0]]),
        "coin": torch.tensor(0.21),
        "die": torch.tensor([0.09, 0.16, 0.21]),
        "vector": torch.tensor([1.5, 1.5]),
    }
    for name, variance in expected.items():
        assert torch.allclose(response.sd[name].square(), variance, rtol=1e-10), name
        assert torch.allclose(response.mean_field_sd[name].square(), variance, rtol=1e-10), name
    assert response.least_curvature == pytest.approx(1.0, abs=1e-10)
    die = response.covariance_of("die")
    p = torch.tensor([0.1, 0.2, 0.7])
    assert torch.allclose(die, p.diag() - p.outer(p), atol=1e-12)
    assert response.labels_of("matrix") == [
        "matrix[0,0]",
        "matrix[0,1]",
        "matrix[1,0]",
        "matrix[1,1]",
    ]


def bounded():
    pyro.sample("beta", dist.Beta(3.0, 2.0))
    pyro.sample("weights", dist.Dirichlet(torch.tensor([3.0, 2.0, 5.0])))
    pyro.sample("positive", dist.LogNormal(0.2, 0.4))
    pyro.sample(
        "part",
        dist.TransformedDistribution(dist.Normal(0.3, 0.5), dist.transforms.SigmoidTransform()),
    )


def test_other_values_lose_what_their_statistics_do_not_explain():
    """The best linear prediction of x by the statistics is what is left of it."""
    families = {"positive": LogNormal(), "part": Normal()}
    fit = CAVI(bounded, AutoMeanField(bounded, families=families)).fit()
    response = linear_response(fit)
    # x ~ LogNormal: Cov(x, u) = s^2 m and Cov(x, u^2) = s^2 m (2 mu + s^2), for u = log x
    mu, v = 0.2, 0.16
    mean = torch.tensor(mu + v / 2).exp()
    statistics = torch.tensor([[v, 2 * mu * v], [2 * mu * v, 2 * v * v + 4 * mu * mu * v]])
    cross = v * mean * torch.tensor([1.0, 2 * mu + v])
    projected = cross @ torch.linalg.solve(statistics, cross)
    assert float(response.sd["positive"] ** 2) == pytest.approx(float(projected), rel=1e-9)
    assert float(response.mean_field_sd["positive"] ** 2) == pytest.approx(
        float(mean**2 * torch.tensor(v).expm1()), rel=1e-10
    )
    # x ~ Beta(3, 2): Cov(x, log x) and Cov(x, log(1 - x)) are derivatives of the mean 3/5
    a, b = torch.tensor(3.0), torch.tensor(2.0)
    both = torch.special.polygamma(1, a + b)
    information = torch.stack([a, b]).polygamma(1).diag() - both
    cross = torch.stack([b, -a]) / (a + b) ** 2
    projected = cross @ torch.linalg.solve(information, cross)
    assert float(response.sd["beta"] ** 2) == pytest.approx(float(projected), rel=1e-9)
    assert float(response.mean_field_sd["beta"] ** 2) == pytest.approx(0.04, rel=1e-10)
    grid = torch.linspace(-6, 6, 4001)
    weight = dist.Normal(0.0, 1.0).log_prob(grid).softmax(0)
    value = (0.3 + 0.5 * grid).sigmoid()
    variance = weight @ value.square() - (weight @ value).square()
    assert float(response.mean_field_sd["part"] ** 2) == pytest.approx(float(variance), rel=1e-6)
    for name, ratio in response.ratio.items():
        assert bool((ratio > 0.9).all()), name
        assert bool((ratio < 1.0).all()), name


def test_regression_against_quadrature():
    case = regression.semi_conjugate_problem(columns=10)
    families = {"tau": Gamma(), "w": Normal()}
    fit = CAVI(case.model, AutoMeanField(case.model, families=families)).fit(*case.args)
    response = linear_response(fit)
    worst = {}
    for name, moments in case.reference.items():
        own = (response.mean_field_sd[name] / moments.sd - 1).abs().max()
        linear = (response.sd[name] / moments.sd - 1).abs().max()
        worst[name] = (float(own), float(linear))
    assert worst["tau"][1] < 1e-5 < 1e-2 < worst["tau"][0]
    # two of the ten columns are nearly a combination of others: ratios of sds up to 7.5
    assert worst["w"][1] < 3e-3 < 0.8 < worst["w"][0]
    assert float(response.ratio["w"].max()) > 7


def test_the_error_falls_as_one_over_the_number_of_data():
    """The same data again and again, so that only their number changes."""
    x, y = regression.data(2)
    x, y = x[:30], y[:30]
    errors = []
    for copies in (1, 4, 16):
        many = x.repeat(copies, 1), y.repeat(copies)
        reference, _ = regression.semi_conjugate_posterior(*many)
        model = regression.semi_conjugate_model
        fit = CAVI(model, AutoMeanField(model, families={"tau": Gamma(), "w": Normal()})).fit(*many)
        response = linear_response(fit)
        errors.append((response.sd["w"] / reference["w"].sd - 1).abs().max())
    first, second, third = errors
    assert float(first / second) == pytest.approx(4.0, rel=0.25)
    assert float(second / third) == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("family", [LogNormal(), Gamma()])
def test_a_positive_site_in_either_family(family):
    """Log-normals are not conjugate to a precision: expectations by Gauss-Hermite points."""
    case = regression.semi_conjugate_problem(columns=2)
    guide = AutoMeanField(case.model, families={"tau": family, "w": Normal()})
    response = linear_response(CAVI(case.model, guide).fit(*case.args))
    assert response.exact == (family == Gamma())
    assert float(response.sd["tau"] / case.reference["tau"].sd) == pytest.approx(1.0, rel=1e-4)


def test_masked_elements_are_no_part_of_the_model():
    def model(x, mask):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x, mask = torch.randn(5), torch.tensor([True, True, False, True, False])
    response = linear_response(CAVI(model).fit(x, mask))
    alone = linear_response(CAVI(model).fit(x[mask], mask[mask]))
    assert torch.allclose(response.sd["mu"], alone.sd["mu"], rtol=1e-10)
    assert torch.allclose(response.sd["z"][mask], alone.sd["z"], rtol=1e-10)
    assert bool(response.sd["z"][~mask].isnan().all())
    assert bool(response.mean_field_sd["z"][~mask].isnan().all())
    assert bool(response.covariance_of("z")[2].isnan().all())


def test_certain_states_have_no_variance_and_do_no_harm():
    def model(x):
        with pyro.plate("components", 2):
            m = pyro.sample("m", dist.Normal(torch.tensor([-1.0, 1.0]), 3.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            b = pyro.sample("b", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(Vindex(m)[..., z], 1.0), obs=x)
            pyro.sample("y", dist.Normal(900 * b, 1.0), obs=900 * (x > 0).to(x))

    x = torch.tensor([-900.0, -1.0, -0.5, 0.2, 1.0, 1.5, 900.0])
    response = linear_response(CAVI(model).fit(x, steps=5000))
    # 900 - 600 = 300 away from the next mean: odds of exp(-10^5)
    assert response.sd["z"][[0, -1]].max() == 0
    assert response.sd["b"].max() == 0
    # so the first is alone in its component
    precisions = 1 / 9 + torch.tensor([1.0, 6.0])
    assert torch.allclose(response.sd["m"].sort().values, precisions.rsqrt().sort().values)
    assert bool(response.covariance.isfinite().all())
    assert bool((response.ratio["b"] == 1).all())
