"""Unknown mean and precision: every coordinate update is the one of the textbook."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes import ReverseKL, fit
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import Gamma
from pyro_klmodes.inference.cavi import CAVI
from tests.inference.cavi.helpers import assert_monotone, prepared

M0, S0, A0, B0 = 0.5, 2.0, 2.0, 1.0


def model(y):
    tau = pyro.sample("tau", dist.Gamma(A0, B0))
    mu = pyro.sample("mu", dist.Normal(M0, S0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)


def data(size=40):
    return 3 + 0.7 * torch.randn(size)


@pytest.mark.parametrize("size", [1, 40, 5000])
def test_updates_are_those_of_bishop_chapter_10(size):
    y = data(size)
    with prepared(model, None, y) as ready:
        q = ready.sweeper.params
        for _ in range(3):
            loc, scale = q["mu"]["loc"], q["mu"]["scale"]
            ready.sweeper.sweep(sites=["tau"])
            rate = B0 + 0.5 * ((y - loc).square() + scale**2).sum()
            assert torch.allclose(
                q["tau"]["concentration"], torch.tensor(A0 + size / 2), rtol=1e-10
            )
            assert torch.allclose(q["tau"]["rate"], rate, rtol=1e-10)
            mean_tau = q["tau"]["concentration"] / q["tau"]["rate"]
            ready.sweeper.sweep(sites=["mu"])
            precision = S0**-2 + size * mean_tau
            expected = (M0 * S0**-2 + mean_tau * y.sum()) / precision
            assert torch.allclose(q["mu"]["loc"], expected, rtol=1e-10)
            assert torch.allclose(q["mu"]["scale"], precision.rsqrt(), rtol=1e-10)


def test_a_shorter_step_goes_part_of_the_way_in_the_natural_parameters():
    y = data()
    guide = AutoMeanField(model, families={"tau": Gamma()})
    guide(y)
    start = [x.clone() for x in guide.natural_parameters("tau")]
    other = copy.deepcopy(guide)
    with prepared(model, guide, y) as ready:
        ready.sweeper.sweep(0.25, sites=["tau"])
        ready.store()
    short = guide.natural_parameters("tau")
    with prepared(model, other, y) as ready:
        ready.sweeper.sweep(sites=["tau"])
        ready.store()
    full = other.natural_parameters("tau")
    for a, b, c in zip(start, short, full, strict=True):
        assert torch.allclose(b, 0.75 * a + 0.25 * c, rtol=1e-10)


def test_the_elbo_is_exact():
    y = data(5)
    result = CAVI(model).fit(y)
    q = result.site_params
    mu = torch.distributions.Normal(q["mu"]["loc"], q["mu"]["scale"])
    tau = torch.distributions.Gamma(q["tau"]["concentration"], q["tau"]["rate"])

    # quadrature on a grid of equal weights; both densities vanish at its ends
    m = torch.linspace(float(mu.mean - 9 * mu.stddev), float(mu.mean + 9 * mu.stddev), 401)
    s = torch.linspace(-12.0, 4.0, 801)  # log tau
    t = s.exp()[:, None, None]
    log_q = mu.log_prob(m) + tau.log_prob(t[..., 0])
    log_p = dist.Normal(m[:, None], t.rsqrt()).log_prob(y).sum(-1)
    log_p = log_p + dist.Normal(M0, S0).log_prob(m) + dist.Gamma(A0, B0).log_prob(t[..., 0])
    cell = (m[1] - m[0]) * (s[1] - s[0])
    expected = float((log_q.exp() * (log_p - log_q) * t[..., 0]).sum() * cell)
    assert float(result.elbos[-1]) == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
def test_it_ends_where_stochastic_gradients_end_in_fewer_runs():
    y = data(30)
    result = CAVI(model).fit(y)
    assert result.converged
    assert_monotone(result)
    guide = AutoMeanField(model, families={"tau": Gamma()})
    steps = 1000
    schedule = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.994}
    )
    slow = fit(model, guide, ReverseKL(4), y, steps=steps, optim=schedule, progress=False)
    # noise of the last steps: a few thousandths in the mean, whose scale is 0.13
    gap = (slow.guide.parameters_of("mu")["loc"] - result.site_params["mu"]["loc"]).abs()
    start = abs(AutoMeanField(model)(y)["mu"] - result.site_params["mu"]["loc"])
    assert gap < 0.01 < 0.05 < start
    assert result.evaluations < steps / 20


def test_the_result_is_a_fit():
    y = data(10)
    result = CAVI(model).fit(y, seed=3)
    assert result.losses.shape == (result.steps,)
    assert torch.equal(result.elbos, -result.losses)
    draws = result.draws(2000)
    # E[log w] is the ELBO; a standard error of about 0.01
    assert abs(draws.log_w.mean() - result.elbos[-1]) < 0.06
    assert set(result.sample(5)) == {"mu", "tau"}
    assert result.params["AutoMeanField.loc.mu"].shape == ()
    assert torch.allclose(result.guide.median(y)["mu"], result.site_params["mu"]["loc"])
    assert "converged" in repr(result)


def test_the_elbo_is_a_function_of_the_parameters():
    y = data(10)
    result = CAVI(model).fit(y)
    elbo = result.expectation.elbo
    params = {
        n: {p: v.clone().requires_grad_() for p, v in q.items()}
        for n, q in result.site_params.items()
    }
    value = elbo(params)
    assert float(value.detach()) == pytest.approx(float(result.elbos[-1]), rel=1e-12)
    leaves = [v for q in params.values() for v in q.values()]
    gradients = torch.autograd.grad(value, leaves, create_graph=True)
    assert max(float(g.detach().abs().max()) for g in gradients) < 1e-5  # a stationary point
    second = torch.autograd.grad(gradients[0], leaves[0])[0]
    assert bool(second.isfinite())
    assert float(second) < 0
