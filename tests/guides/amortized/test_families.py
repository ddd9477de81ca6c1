"""The local families: their densities, starts, quantiles and gradients."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.amortized.families import (
    DiagonalNormal,
    FullNormal,
    StudentT,
    as_raw,
    positive,
)
from pyro_klmodes.guides.amortized.mixture import NormalMixture
from pyro_klmodes.guides.joint.spread import At

FAMILIES = [
    DiagonalNormal(),
    FullNormal(),
    StudentT(10.0),
    StudentT(10.0, learn_df=True),
    NormalMixture(3),
]
NONE = torch.zeros(())
every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)


def random_raw(family, size, *batch):
    start = family.start(torch.zeros(size), 1.0)
    return start + 0.5 * torch.randn(*batch, len(start))


@every_family
def test_density_integrates_to_one_in_two_dimensions(family):
    axis = torch.linspace(-60, 60, 2401)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    found = family.distribution(random_raw(family, 2), 2, NONE).log_prob(points)
    mass = found.exp().sum() * (axis[1] - axis[0]) ** 2
    # of a Student-t with five degrees of freedom some 1e-7 is further out
    assert mass.item() == pytest.approx(1.0, abs=1e-5 if isinstance(family, StudentT) else 1e-9)


@every_family
def test_a_batch_has_one_distribution_for_each_of_its_elements(family):
    raw = random_raw(family, 2, 4)
    together = family.distribution(raw, 2, NONE).expand((3, 4))
    value = together.rsample()
    assert value.shape == (3, 4, 2)
    found = together.log_prob(value)
    assert found.shape == (3, 4)
    for i in range(4):
        alone = family.distribution(raw[i], 2, NONE).log_prob(value[:, i])
        torch.testing.assert_close(found[:, i], alone)


@every_family
def test_a_shift_moves_the_density(family):
    raw = random_raw(family, 2, 4)
    shift = torch.randn(3, 4, 2)
    value = torch.randn(3, 4, 2)
    moved = family.distribution(raw, 2, shift)
    assert moved.batch_shape == (3, 4)
    here = family.distribution(raw, 2, NONE).log_prob(value - shift)
    torch.testing.assert_close(moved.log_prob(value), here)


@pytest.mark.parametrize("family", FAMILIES[:2], ids=repr)
def test_normals_start_at_the_location_with_the_scale(family):
    loc = torch.tensor([1.0, -2.0])
    start = family.distribution(family.start(loc, 0.3), 2, NONE)
    other = dist.Normal(loc, 0.3).to_event(1)
    value = torch.randn(5, 2)
    torch.testing.assert_close(start.log_prob(value), other.log_prob(value))


@pytest.mark.parametrize("learn_df", [False, True])
def test_student_t_starts_with_its_degrees_of_freedom(learn_df):
    loc = torch.tensor([1.0, -2.0])
    family = StudentT(5.0, learn_df=learn_df)
    other = dist.StudentT(5.0, loc, 0.3).to_event(1)
    value = torch.randn(5, 2)
    found = family.distribution(family.start(loc, 0.3), 2, NONE).log_prob(value)
    torch.testing.assert_close(found, other.log_prob(value))


def test_a_mixture_starts_where_its_components_are_put():
    points = torch.tensor([[-1.0], [4.0]])
    family = NormalMixture(2, start_at=At(points))
    found = family.distribution(family.start(torch.zeros(1), 0.5), 1, NONE)
    torch.testing.assert_close(found.locs, points)
    torch.testing.assert_close(found.sd, torch.full((2, 1), 0.5))
    torch.testing.assert_close(found.log_weights, torch.full((2,), -math.log(2)))


def test_full_normal_has_the_covariance_of_its_factor():
    raw = torch.cat([torch.zeros(2), as_raw(torch.tensor([1.0, 2.0])), torch.tensor([0.5])])
    factor = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    found = FullNormal().distribution(raw, 2, NONE).covariance_matrix
    torch.testing.assert_close(found, factor @ factor.T)


@every_family
def test_quantiles_are_those_of_many_draws(family):
    raw = random_raw(family, 2, 3)
    levels = torch.tensor([0.1, 0.5, 0.8])
    found = family.quantiles(raw, 2, levels)
    assert found.shape == (3, 3, 2)
    draws = family.distribution(raw, 2, NONE).sample((40_000,))
    below = (draws[:, None] < found).double().mean(0)
    target = levels[:, None, None].expand_as(below)
    error = (target * (1 - target) / 40_000).sqrt()
    assert bool(((below - target).abs() < 4 * error).all())


def test_positive_is_positive_and_as_raw_is_its_inverse():
    scale = torch.tensor([1e-6, 0.1, 1.0, 50.0])
    torch.testing.assert_close(positive(as_raw(scale)), scale, rtol=1e-9, atol=0)
    assert positive(torch.tensor([-1e4])).item() > 0
    assert positive(torch.tensor([-1e4], dtype=torch.float32)).item() > 0


@pytest.mark.parametrize("num_components", [0, -1, 2.0, True])
def test_bad_numbers_of_components_are_refused(num_components):
    with pytest.raises(InvalidArgument, match="num_components"):
        NormalMixture(num_components)


@pytest.mark.parametrize("df", [0.0, -1.0, math.inf, math.nan])
def test_bad_degrees_of_freedom_are_refused(df):
    with pytest.raises(InvalidArgument, match="df"):
        StudentT(df)
