"""Sweeps for algorithms built on them: nodes, convergence, parameters of the model that move."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from tests.inference.cavi.helpers import prepared


def two_factors(x):
    w = pyro.param("w", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(w * (a + b), 1.0), obs=x)


def moments(w, x):
    """Mean-field posterior of each factor: mean and variance."""
    return w * x / (1 + 2 * w * w), 1 / (1 + w * w)


def test_the_model_may_change_between_sweeps():
    x = torch.tensor([0.5, -1.0, 2.0])
    with prepared(two_factors, None, x) as ready:
        sweeper = ready.sweeper
        assert sweeper.converge(tolerance=1e-13) < 100
        before = sweeper.elbo
        for w in (0.3, 1.5):
            with torch.no_grad():
                pyro.param("w").fill_(w)
            sweeper.forget()
            sweeper.converge(tolerance=1e-13)
            mean, variance = moments(w, x)
            assert torch.allclose(sweeper.params["a"]["loc"], mean, atol=1e-10)
            assert torch.allclose(sweeper.params["a"]["scale"] ** 2, torch.full((3,), variance))
        assert sweeper.elbo != before


def test_the_expected_log_joint_is_a_function_of_the_models_parameters():
    x = torch.tensor([0.5, -1.0, 2.0])
    with prepared(two_factors, None, x) as ready:
        sweeper = ready.sweeper
        sweeper.converge(tolerance=1e-13)
        total, _ = sweeper.expectation.log_joint(sweeper.nodes())
        (gradient,) = torch.autograd.grad(total, pyro.param("w"))
        mean, variance = moments(0.3, x)
        expected = (x * 2 * mean - 0.3 * ((2 * mean) ** 2 + 2 * variance)).sum()
        assert float(gradient) == pytest.approx(float(expected), rel=1e-9)


def test_nodes_have_the_moments_of_the_sites():
    x = torch.tensor([0.5, -1.0, 2.0])
    with prepared(two_factors, None, x) as ready:
        ready.sweeper.converge(tolerance=1e-13)
        nodes = ready.sweeper.nodes()["a"]
        mean, variance = moments(0.3, x)
        assert nodes.values.shape == (2, 3)
        assert torch.allclose(nodes.weights @ nodes.values, mean, atol=1e-10)
        second = nodes.weights @ nodes.values**2
        assert torch.allclose(second - mean**2, torch.full((3,), variance), rtol=1e-9)


def test_sites_that_share_no_term_are_updated_from_one_run():
    def model(x, y):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)
            pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    x = torch.randn(4)
    with prepared(model, None, x, -x) as ready:
        assert ready.sweeper.elbo < 0
        before = ready.plan.model.runs
        ready.sweeper.sweep()
        assert ready.plan.model.runs == before + 1
        assert torch.allclose(ready.sweeper.params["a"]["loc"], x / 2)
        assert torch.allclose(ready.sweeper.params["b"]["loc"], -x / 2)
