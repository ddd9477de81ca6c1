"""The amortisation gap, against Kullback-Leibler divergences in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import init_to_mean

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides.amortized import (
    AutoAmortized,
    DiagonalNormal,
    FullNormal,
    amortisation_gap,
)
from tests.guides.amortized.cases import NOISE, chain, exact, log_evidence, normal_normal

X = torch.linspace(-2.0, 2.0, 7, dtype=torch.float64)
POINTS = torch.linspace(-8, 8, 801, dtype=torch.float64)


def log_joint(z):
    return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, NOISE).log_prob(X)


def test_at_the_posterior_there_is_no_gap():
    found = amortisation_gap(exact(X), log_joint, POINTS, 0.02, X, steps=0)
    torch.testing.assert_close(found.log_evidence, log_evidence(X))
    torch.testing.assert_close(found.amortised, log_evidence(X))
    assert abs(found.approximation) < 1e-10
    assert abs(found.amortisation) < 1e-10


def test_a_guide_that_ignores_the_data_has_all_of_its_gap_from_amortisation():
    guide = AutoAmortized(normal_normal, init_loc_fn=init_to_mean)  # every datum has the prior
    found = amortisation_gap(guide, log_joint, POINTS, 0.02, X, steps=200)
    # KL(N(0, 1) || N(m, v)) of the posterior's mean and variance
    v = NOISE**2 / (1 + NOISE**2)
    m = X / (1 + NOISE**2)
    exact_gap = 0.5 * ((1 + m**2) / v - 1 + math.log(v))
    torch.testing.assert_close(found.log_evidence - found.amortised, exact_gap)
    assert found.approximation < 1e-6
    assert found.amortisation == pytest.approx(float(exact_gap.mean()), abs=1e-6)


@pytest.mark.parametrize("family", [DiagonalNormal(), FullNormal()])
def test_independent_coordinates_have_an_approximation_gap(family):
    """Two coordinates seen by their sum: the best product of normals misses -log(1 - r^2) / 2."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    x = X[:3]
    axis = torch.linspace(-6, 6, 61)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)

    def joint(z):
        return dist.Normal(torch.zeros(2), 1.0).to_event(1).log_prob(z) + dist.Normal(
            z.sum(-1), 1.0
        ).log_prob(x)

    guide = AutoAmortized(model, family=family)
    found = amortisation_gap(guide, joint, points, 0.04, x, steps=150)
    correlation = -0.5  # the posterior precision is [[2, 1], [1, 2]]
    expected = -0.5 * math.log(1 - correlation**2) if family == DiagonalNormal() else 0.0
    assert found.approximation == pytest.approx(expected, abs=1e-5)
    assert found.amortisation > 0.1


def test_a_gap_prints_what_it_says():
    found = amortisation_gap(exact(X), log_joint, POINTS, 0.02, X, steps=0)
    assert str(found).startswith("per datum: log evidence -1.")
    assert "approximation gap" in str(found)
    assert "amortisation gap" in str(found)


@pytest.mark.parametrize("points", [POINTS / 20, torch.linspace(-8, 8, 9)])
def test_a_grid_that_does_not_hold_the_guide_is_refused(points):
    with pytest.raises(InvalidArgument, match="wider or a finer grid"):
        amortisation_gap(exact(X), log_joint, points, float(points[1] - points[0]), X)


def test_more_than_one_site_is_refused():
    with pytest.raises(UnsupportedStructure, match="one local site.*'z', 'w'"):
        amortisation_gap(AutoAmortized(chain), log_joint, POINTS, 0.02, X)


def test_data_along_several_plates_are_refused():
    def model(x):
        with pyro.plate("a", 2, dim=-2), pyro.plate("b", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(UnsupportedStructure, match=r"'z' has batch shape \(2, 3\)"):
        amortisation_gap(AutoAmortized(model), log_joint, POINTS, 0.02, torch.randn(2, 3))
