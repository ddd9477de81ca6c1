"""Where components start: spread, stratified, given, at modes."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.guides.joint.modes import FromModes, find_modes
from pyro_klmodes.guides.joint.spread import At, Sobol, Spread


def ring():
    """Eight normals on a circle of radius 8, with unequal masses."""
    angle = torch.arange(8) * math.pi / 4
    centres = 8 * torch.stack([angle.cos(), angle.sin()], -1)
    masses = torch.tensor([0.05, 0.2, 0.1, 0.15, 0.1, 0.2, 0.1, 0.1])
    target = MixtureSameFamily(Categorical(masses), Independent(Normal(centres, 1.0), 1))
    return target, centres, masses


@pytest.mark.parametrize("strategy", [Spread(2.0), Sobol(2.0)])
def test_points_are_normal_around_the_location(strategy):
    loc = torch.tensor([5.0, -3.0])
    points = strategy(loc, 4096, 1.0)
    assert points.shape == (4096, 2)
    # standard errors of 4096 random points: 2 / 64 = 0.031 and 2 / 64 / sqrt(2) = 0.022
    assert (points.mean(0) - loc).abs().max() < 4 * 0.031
    assert (points.std(0) - 2).abs().max() < 4 * 0.022


def test_stratified_points_leave_no_gap():
    points = Sobol(1.0)(torch.zeros(3), 64, 1.0)
    # sixty-four points of a Sobol sequence: one in each of the 64 slices of every coordinate
    slices = (torch.special.ndtr(points) * 64).long().sort(0).values
    assert torch.equal(slices, torch.arange(64).unsqueeze(-1).expand(64, 3))


@pytest.mark.parametrize("strategy", [Spread(), Sobol()])
def test_the_global_generator_decides(strategy):
    first, second = (strategy(torch.zeros(2), 3, 1.0) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    first = strategy(torch.zeros(2), 3, 1.0)
    torch.manual_seed(0)
    assert torch.equal(first, strategy(torch.zeros(2), 3, 1.0))


@pytest.mark.parametrize(
    "strategy",
    [
        Spread(),
        Sobol(),
        At(torch.zeros(2, 1)),
        FromModes(lambda u: -(u**2).sum(-1), num_starts=2),
    ],
)
def test_type_of_the_location(strategy):
    assert strategy(torch.zeros(1, dtype=torch.float32), 2, 1.0).dtype == torch.float32


def test_finds_all_modes_of_the_ring_the_highest_first():
    target, centres, masses = ring()
    modes = FromModes(target.log_prob, radius=8.0, num_starts=64)(torch.zeros(2), 8, 1.0)
    distance = torch.cdist(modes, centres)
    assert sorted(distance.argmin(-1).tolist()) == list(range(8))
    # neighbours are 6.1 sd apart: they move a mode by no more than 4 exp(-6.1^2 / 2) 6.1 = 2e-7
    assert distance.min(-1).values.max() < 1e-4
    heights = masses[distance.argmin(-1)]
    assert torch.equal(heights, heights.sort(descending=True).values)


def test_more_modes_than_components():
    target, centres, _ = ring()
    modes = FromModes(target.log_prob, radius=8.0, num_starts=64)(torch.zeros(2), 2, 1.0)
    found = torch.cdist(modes, centres).argmin(-1)
    assert sorted(found.tolist()) == [1, 5]  # the two of mass 0.2


def test_more_components_than_modes():
    points = FromModes(lambda u: -((u - 3) ** 2).sum(-1), num_starts=3)(torch.zeros(2), 500, 0.1)
    torch.testing.assert_close(points[0], torch.full((2,), 3.0), atol=1e-5, rtol=0)
    # standard error of the standard deviation of a thousand numbers: 0.1 / sqrt(2000) = 0.0022
    assert abs(float((points[1:] - 3).std()) - 0.1) < 4 * 0.0022


def test_runs_that_leave_the_finite_numbers_are_dropped():
    def log_density(u):  # a maximum at -1; not a number right of 1, no maximum
        return torch.where(u < 1, -((u + 1) ** 2), torch.full_like(u, torch.nan)).sum(-1)

    modes = find_modes(log_density, torch.tensor([[-3.0], [0.5], [2.0]]))
    torch.testing.assert_close(modes, torch.tensor([[-1.0]]), atol=1e-5, rtol=0)


def test_starts_are_not_part_of_a_graph():
    target, _, _ = ring()
    with torch.no_grad():
        modes = find_modes(target.log_prob, torch.tensor([[7.0, 1.0]]))
    assert not modes.requires_grad
    torch.testing.assert_close(modes, torch.tensor([[8.0, 0.0]]), atol=1e-4, rtol=0)


def test_bad_arguments_are_refused():
    with pytest.raises(InvalidArgument, match="radius is 0"):
        Spread(0.0)
    with pytest.raises(InvalidArgument, match="radius is -1"):
        Sobol(-1.0)
    with pytest.raises(InvalidArgument, match="num_starts is 0"):
        FromModes(lambda u: u.sum(-1), num_starts=0)
    with pytest.raises(InvalidArgument, match=r"points have shape \(3, 1\), but \(2, 1\)"):
        At(torch.zeros(3, 1))(torch.zeros(1), 2, 1.0)
    with pytest.raises(InvalidArgument, match="no points in 30000 dimensions"):
        Sobol()(torch.zeros(30_000), 2, 1.0)
    with pytest.raises(InvalidArgument, match="FromModes has no log_density"):
        FromModes()(torch.zeros(1), 2, 1.0)
    with pytest.raises(InvalidArgument, match="no finite local maximum"):
        FromModes(lambda u: u.sum(-1) * torch.nan, num_starts=2)(torch.zeros(1), 2, 1.0)
