"""Masses of modes against eight modes of known mass, and modes found without being told."""

import math

import pytest
import torch

from models import eight_modes
from pyro_klmodes.diagnostics.modes import find_modes, mode_coverage
from pyro_klmodes.errors import InvalidArgument


def test_draws_of_the_target_have_its_masses():
    """Within four standard errors of 4000 draws and the 0.0003 that are nearest to a neighbour."""
    found = mode_coverage(
        eight_modes.target().sample((4000,)), eight_modes.means(), masses=eight_modes.masses()
    )
    error = (eight_modes.masses() * (1 - eight_modes.masses()) / 4000).sqrt()
    assert ((found.masses - eight_modes.masses()).abs() < 4 * error + 0.0003).all()
    assert found.entropy == pytest.approx(0.961, abs=0.01)
    assert found.expected_entropy == pytest.approx(eight_modes.mode_entropy(eight_modes.masses()))
    assert found.jensen_shannon < 0.002
    assert (found.hit, found.missed) == (1.0, ())


def test_one_mode_out_of_eight():
    draws = eight_modes.means()[3] + torch.randn(500, 2)
    found = mode_coverage(draws, eight_modes.means(), masses=eight_modes.masses())
    assert found.hit == 1 / 8
    assert found.missed == (0, 1, 2, 4, 5, 6, 7)
    assert found.entropy < 0.05
    # JSD of a point mass and masses with .15 there, in bits
    mixed = 0.5 * math.log2(1 / (0.5 * 1.15)) + 0.5 * (
        0.15 * math.log2(0.15 / (0.5 * 1.15)) + 0.85 * math.log2(2)
    )
    assert found.jensen_shannon == pytest.approx(mixed, abs=0.02)


def test_equal_masses_have_entropy_one_and_disjoint_ones_a_divergence_of_one():
    modes = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert mode_coverage(modes, modes).entropy == pytest.approx(1.0)
    found = mode_coverage(modes[:2], modes, masses=torch.tensor([0.0, 0.0, 0.5, 0.5]))
    assert found.jensen_shannon == pytest.approx(1.0)


def test_weights_move_the_masses():
    """A guide with equal masses, weighted by the masses of the target, has those of the target."""
    which = torch.arange(8).repeat(500)
    draws = eight_modes.means()[which] + 0.5 * torch.randn(4000, 2)
    log_w = eight_modes.masses().log()[which]
    found = mode_coverage(draws, eight_modes.means(), log_w=log_w, masses=eight_modes.masses())
    assert found.masses.tolist() == pytest.approx(eight_modes.MASSES, abs=1e-12)
    assert found.counts.tolist() == [500] * 8
    assert found.jensen_shannon == pytest.approx(0.0, abs=1e-12)


def test_eight_modes_are_found_without_a_reference():
    draws = eight_modes.target().sample((3000,))
    found = find_modes(draws)
    assert found.locations.shape == (8, 2)
    distance = torch.cdist(eight_modes.means(), found.locations)
    assert distance.min(1).values.max() < 1.0
    true = eight_modes.masses()[distance.argmin(0)]
    assert (found.masses - true).abs().max() < 4 * math.sqrt(0.2 * 0.8 / 3000)
    assert found.masses.tolist() == sorted(found.masses.tolist(), reverse=True)


def test_found_modes_serve_as_reference():
    reference = find_modes(eight_modes.target().sample((3000,)))
    two = torch.cat([eight_modes.means()[[1, 5]].repeat(250, 1)]) + torch.randn(500, 2)
    found = mode_coverage(two, reference)
    assert found.hit == 2 / 8
    assert found.jensen_shannon > 0.2


@pytest.mark.parametrize("dimension", [1, 2, 5, 20, 50])
def test_a_normal_has_one_mode(dimension):
    """At its mean, within 4.5 standard errors of 1000 draws."""
    found = find_modes(3.0 + 10.0 * torch.randn(1000, dimension))
    assert found.locations.shape == (1, dimension)
    assert found.masses.tolist() == pytest.approx([1.0])
    assert (found.locations - 3.0).abs().max() < 45 / math.sqrt(1000)


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_two_modes_in_many_dimensions(dimension):
    draws = torch.randn(1000, dimension)
    draws[:300, 0] += 6.0
    found = find_modes(draws)
    assert found.masses.tolist() == pytest.approx([0.7, 0.3], abs=0.005)
    assert found.labels[:300].double().mean() > 0.99
    assert found.labels[300:].double().mean() < 0.01


@pytest.mark.parametrize("shape", ["correlated", "skewed", "heavy", "banana"])
def test_one_mode_of_another_shape_stays_one(shape):
    z = torch.randn(2000, 2)
    if shape == "correlated":
        z[:, 1] = 0.99 * z[:, 0] + math.sqrt(1 - 0.99**2) * z[:, 1]
    elif shape == "skewed":
        z = z.exp()
    elif shape == "heavy":
        z = z / (torch.randn(2000, 4) ** 2).mean(1, keepdim=True).sqrt()
    else:
        z[:, 1] += z[:, 0] ** 2
    assert len(find_modes(z).masses) == 1


def test_a_rare_mode_that_weighs_much_is_kept():
    """4 of 800 draws, but half of the weight."""
    draws = torch.cat([torch.randn(796, 1), 12.0 + 0.3 * torch.randn(4, 1)])
    log_w = torch.where(torch.arange(800) < 796, 1 / 796, 1 / 4).log()
    assert len(find_modes(draws).masses) == 1
    found = find_modes(draws, log_w=log_w)
    assert found.masses.tolist() == pytest.approx([796 / 800, 4 / 800])
    assert found.weighted_masses.tolist() == pytest.approx([0.5, 0.5], abs=1e-9)


def test_units_do_not_matter():
    draws = torch.randn(400, 2)
    draws[:100, 0] += 8.0
    unit = torch.tensor([1e-3, 1e5])
    one, other = find_modes(draws), find_modes(draws * unit)
    assert torch.allclose(one.locations * unit, other.locations)
    assert torch.equal(one.masses, other.masses)


def test_the_global_generator_is_left_alone():
    draws = torch.randn(300, 2)
    before = torch.get_rng_state()
    assert torch.equal(find_modes(draws).labels, find_modes(draws).labels)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mode_coverage(torch.zeros(3, 2), torch.zeros(1, 2)), "at least 2"),
        (lambda: mode_coverage(torch.zeros(3, 2), torch.zeros(2, 3)), "2 columns and modes 3"),
        (lambda: mode_coverage(torch.zeros(3), torch.zeros(2, 3)), "draws must be a tensor"),
        (
            lambda: mode_coverage(torch.zeros(3, 1), torch.zeros(2, 1), masses=torch.ones(3)),
            "masses must be 2 numbers",
        ),
        (
            lambda: mode_coverage(torch.zeros(3, 1), torch.zeros(2, 1), masses=-torch.ones(2)),
            "not negative",
        ),
        (
            lambda: mode_coverage(torch.zeros(3, 1), torch.zeros(2, 1), scale=torch.zeros(1)),
            "scale must be 1 positive",
        ),
        (
            lambda: mode_coverage(torch.full((3, 1), math.nan), torch.zeros(2, 1)),
            "not finite",
        ),
        (lambda: find_modes(torch.ones(5, 1)), "do not vary in coordinate 0"),
        (lambda: find_modes(torch.randn(5, 1), most=0), "most=0"),
        (lambda: find_modes(torch.randn(5, 1), least_mass=1.0), "least_mass=1.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidArgument, match=message):
        call()
