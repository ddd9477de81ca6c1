"""Hasselblad's mixture: likelihood by Pyro and scipy, EM's step by weighted means, its maximum."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy import stats

from models import mixed_poisson
from models.mixed_poisson import COUNTS, MAX_LOG_LIKELIHOOD, MAXIMUM


def by_scipy(theta, x):
    shares = np.array([theta[0], 1 - theta[0]])
    return np.log(stats.poisson.pmf(x[:, None], np.array(theta[1:])) @ shares).sum()


def test_the_data_are_those_of_1096_days():
    x = mixed_poisson.data()
    assert len(x) == 1096
    np.testing.assert_array_equal(np.bincount(x.long().numpy()), COUNTS)


@pytest.mark.parametrize("theta", [MAXIMUM, (0.3, 1.0, 2.5), (0.05, 9.0, 0.1)])
def test_the_likelihood_by_scipy(theta):
    expected = by_scipy(theta, mixed_poisson.data().numpy())
    found = mixed_poisson.em_step(torch.tensor(theta))[1]
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_model_is_the_same_likelihood():
    x = mixed_poisson.data()
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(mixed_poisson.model, lambda x: None, x)
    weight, rates = pyro.param("weights")[0], pyro.param("rates")
    theta = torch.stack([weight, *rates]).detach()
    assert -loss == pytest.approx(float(mixed_poisson.em_step(theta)[1]), rel=1e-12)


def test_a_step_is_that_of_weighted_means_of_single_days():
    x = mixed_poisson.data()
    theta = mixed_poisson.starts(4)
    for row, found in zip(theta.numpy(), mixed_poisson.em_step(theta)[0].numpy(), strict=True):
        joint = stats.poisson.pmf(x[:, None], row[1:]) * np.array([row[0], 1 - row[0]])
        h = joint / joint.sum(-1, keepdims=True)
        rates = (h * x.numpy()[:, None]).sum(0) / h.sum(0)
        np.testing.assert_allclose(found, [h[:, 0].mean(), *rates], rtol=1e-10)
    of_days = mixed_poisson.em_step(theta, x)
    for a, b in zip(of_days, mixed_poisson.em_step(theta), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


def test_the_published_maximum_is_a_stationary_point_of_the_published_value():
    theta = torch.tensor(MAXIMUM, requires_grad=True)
    value = mixed_poisson.em_step(theta)[1]
    assert float(value.detach()) == pytest.approx(MAX_LOG_LIKELIHOOD, abs=5e-6)
    (gradient,) = torch.autograd.grad(value, theta)
    elsewhere = theta.detach() * 1.001
    elsewhere.requires_grad_()
    (far,) = torch.autograd.grad(mixed_poisson.em_step(elsewhere)[1], elsewhere)
    assert gradient.abs().max() < 1e-3
    assert far.abs().max() > 0.05
    after = mixed_poisson.em_step(theta.detach())[0]
    torch.testing.assert_close(after, theta.detach(), rtol=0, atol=1e-7)


def test_outside_of_the_support_the_value_is_minus_infinity():
    theta = torch.tensor([[1.1, 1.0, 2.0], [0.5, -1.0, 2.0], [0.5, 1.0, -2.0], [0.5, 1.0, 2.0]])
    value = mixed_poisson.em_step(theta)[1]
    assert (value[:3] == -torch.inf).all()
    assert value[3].isfinite()


def test_coordinates_there_and_back():
    theta = mixed_poisson.starts(5)
    free = mixed_poisson.unconstrained(theta)
    torch.testing.assert_close(mixed_poisson.constrained(free), theta)
    torch.testing.assert_close(free[:, 0].sigmoid(), theta[:, 0])
