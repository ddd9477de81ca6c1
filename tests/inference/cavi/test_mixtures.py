"""Gaussian mixtures with priors: the updates of Bishop (2006), section 10.2, in mean field."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from pyro_klmodes.guides.site_families.bartlett import BartlettWishart
from pyro_klmodes.inference.cavi import CAVI
from tests.inference.cavi.helpers import assert_monotone, prepared

K = 3


def univariate(x):
    """Components in a plate, picked by plain indexing, as most people write it."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((K,), 1.5)))
    with pyro.plate("components", K):
        mu = pyro.sample("mu", dist.Normal(0.5, 5.0))
        tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mu[z], tau[z].rsqrt()), obs=x)


def broadcast_safe(x):
    """The same with the components as an event."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((K,), 1.5)))
    mu = pyro.sample("mu", dist.Normal(0.5, 5.0).expand([K]).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0).expand([K]).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(Vindex(mu)[..., z], Vindex(tau)[..., z].rsqrt()), obs=x)


def multivariate(x):
    """Vectors with precision matrices."""
    D = x.shape[-1]
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((K,), 1.5)))
    with pyro.plate("components", K):
        mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(D), 25 * torch.eye(D)))
        precision = pyro.sample("precision", BartlettWishart(torch.tensor(D + 2.0), torch.eye(D)))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        normal = dist.MultivariateNormal(mu[z], precision_matrix=precision[z])
        pyro.sample("x", normal, obs=x)


def data():
    return torch.cat([torch.randn(20) - 6, 0.5 * torch.randn(30), torch.randn(40) + 6])


def close(a, b):
    return torch.allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("model", [univariate, broadcast_safe])
def test_univariate_updates(model):
    x = data()
    with prepared(model, None, x) as ready:
        q, sweeper = ready.sweeper.params, ready.sweeper
        for _ in range(3):
            r = q["z"]["logits"].softmax(-1)
            sweeper.sweep(sites=["weights"])
            assert close(q["weights"]["concentration"], 1.5 + r.sum(0))
            mean_tau = q["tau"]["concentration"] / q["tau"]["rate"]
            sweeper.sweep(sites=["mu"])
            precision = 1 / 25 + mean_tau * r.sum(0)
            assert close(q["mu"]["loc"], (0.5 / 25 + mean_tau * (x @ r)) / precision)
            assert close(q["mu"]["scale"], precision.rsqrt())
            sweeper.sweep(sites=["tau"])
            squares = (x[:, None] - q["mu"]["loc"]).square() + q["mu"]["scale"].square()
            assert close(q["tau"]["concentration"], 2 + r.sum(0) / 2)
            assert close(q["tau"]["rate"], 1 + (r * squares).sum(0) / 2)
            sweeper.sweep(sites=["z"])
            a, b, c = q["tau"]["concentration"], q["tau"]["rate"], q["weights"]["concentration"]
            log_r = c.digamma() + 0.5 * (a.digamma() - b.log()) - 0.5 * a / b * squares
            assert close(q["z"]["logits"].softmax(-1), log_r.softmax(-1))


def test_multivariate_updates():
    x = torch.stack([data(), 2 * torch.randn(90)], -1) @ torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    D = 2
    with prepared(multivariate, None, x) as ready:
        q, sweeper = ready.sweeper.params, ready.sweeper
        sweeper.sweep()
        for _ in range(2):
            r = q["z"]["logits"].softmax(-1)
            scale = q["precision"]["scale_tril"] @ q["precision"]["scale_tril"].mT
            mean = q["precision"]["df"][:, None, None] * scale
            sweeper.sweep(sites=["mu"])
            precision = torch.eye(D) / 25 + r.sum(0)[:, None, None] * mean
            first = torch.einsum("kij,nk,nj->ki", mean, r, x)
            assert close(q["mu"]["loc"], torch.linalg.solve(precision, first))
            covariance = q["mu"]["scale_tril"] @ q["mu"]["scale_tril"].mT
            assert close(covariance, precision.inverse())
            sweeper.sweep(sites=["precision"])
            away = x[:, None] - q["mu"]["loc"]
            scatter = torch.einsum("nk,nki,nkj->kij", r, away, away)
            scatter = scatter + r.sum(0)[:, None, None] * covariance
            assert close(q["precision"]["df"], D + 2 + r.sum(0))
            tril = q["precision"]["scale_tril"]
            assert close((tril @ tril.mT).inverse(), torch.eye(D) + scatter)
            sweeper.sweep(sites=["z"])
            df, scale = q["precision"]["df"], tril @ tril.mT
            halves = (df[:, None] - torch.arange(D)) / 2
            log_det = halves.digamma().sum(-1) + D * torch.tensor(2.0).log() + scale.logdet()
            mean = df[:, None, None] * scale
            squares = torch.einsum("nki,kij,nkj->nk", away, mean, away)
            squares = squares + torch.einsum("kij,kij->k", mean, covariance)
            log_r = q["weights"]["concentration"].digamma() + 0.5 * (log_det - squares)
            assert close(q["z"]["logits"].softmax(-1), log_r.softmax(-1))


def test_indexing_of_both_kinds_gives_one_answer():
    x = data()
    plain, safe = (CAVI(m).fit(x, tolerance=1e-10) for m in (univariate, broadcast_safe))
    assert plain.conjugacy.conjugate
    assert safe.conjugacy.conjugate
    assert plain.expectation.plan.apart == ("mu", "tau")
    assert safe.expectation.plan.apart == ()
    assert_monotone(plain)
    # the starts differ, the optimum does not, up to the order of the components
    one, other = (r.site_params["mu"]["loc"].sort().values for r in (plain, safe))
    assert torch.allclose(one, other, atol=1e-6)
    assert abs(plain.elbos[-1] - safe.elbos[-1]) < 1e-8 < abs(plain.elbos[0] - safe.elbos[-1]) / 5


def test_a_model_that_branches_on_values_is_run_value_by_value():
    def branching(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        weight = 1.0 if float(mu.detach()) < 1e10 else 2.0
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(weight * mu, 1.0), obs=x)

    x = torch.tensor([1.0, 2.0])
    result = CAVI(branching).fit(x)
    assert result.expectation.plan.apart == ("mu",)
    assert torch.allclose(result.site_params["mu"]["loc"], torch.tensor(1.0))
    assert torch.allclose(result.site_params["mu"]["scale"], torch.tensor(3.0).rsqrt())


@pytest.mark.parametrize("seed", range(20))
def test_the_elbo_never_falls(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 60, (), generator=generator))
    x = 3 * torch.randn(size, generator=generator)
    result = CAVI(broadcast_safe).fit(x, seed=seed, steps=15)
    assert result.steps > 1
    assert_monotone(result)
