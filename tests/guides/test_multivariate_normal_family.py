"""The normal with full covariance as an exponential family, and as a guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides import AutoMeanField
from pyro_klmodes.guides.site_families import MultivariateNormal

FAMILY, REAL = MultivariateNormal(), constraints.real_vector


def params():
    root = torch.randn(4, 3, 3)
    covariance = root @ root.mT + torch.eye(3)
    return {"loc": torch.randn(4, 3), "scale_tril": torch.linalg.cholesky(covariance)}


def same(a, b):
    return all(torch.allclose(a[name], b[name], rtol=1e-9, atol=1e-11) for name in a)


def test_parameters_of_all_kinds_are_one():
    q = params()
    assert same(FAMILY.from_natural(FAMILY.natural(q)), q)
    assert same(FAMILY.from_mean_parameters(FAMILY.mean_parameters(q)), q)


def test_the_density_is_that_of_the_distribution():
    q = params()
    value = torch.randn(4, 3)
    expected = FAMILY.distribution(q, REAL, 1).log_prob(value)
    assert torch.allclose(FAMILY.log_prob(FAMILY.natural(q), value, REAL, 1), expected)


def test_mean_parameters_are_the_gradient_of_the_log_normaliser():
    q = params()
    natural = tuple(eta.requires_grad_() for eta in FAMILY.natural(q))
    gradient = torch.autograd.grad(FAMILY.log_normaliser(natural).sum(), natural)
    for a, b in zip(gradient, FAMILY.mean_parameters(q), strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_quantiles_are_those_of_the_marginals():
    q = params()
    levels = torch.tensor([0.1, 0.5])
    sd = (q["scale_tril"] @ q["scale_tril"].mT).diagonal(dim1=-2, dim2=-1).sqrt()
    marginal = dist.Normal(q["loc"], sd)
    found = FAMILY.quantile(q, levels, REAL)
    assert torch.allclose(marginal.cdf(found[0]), torch.full((4, 3), 0.1))
    assert torch.allclose(FAMILY.median(q, REAL), q["loc"])


def test_a_guide_with_a_full_covariance():

    def model():
        with pyro.plate("groups", 4):
            pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = AutoMeanField(model, families={"w": FAMILY})
    assert guide()["w"].shape == (4, 3)
    assert guide.parameters_of("w")["scale_tril"].shape == (4, 3, 3)
    assert torch.isfinite(guide.log_prob({"w": torch.zeros(4, 3)}))


def test_it_lives_on_real_vectors():
    assert FAMILY.accepts(REAL)
    assert not FAMILY.accepts(constraints.real)
    assert not FAMILY.accepts(constraints.positive)

    def model():

        pyro.sample("s", dist.Normal(0.0, 1.0))

    with pytest.raises(InvalidArgument, match="site 's'.*MultivariateNormal"):
        AutoMeanField(model, families={"s": FAMILY})()
