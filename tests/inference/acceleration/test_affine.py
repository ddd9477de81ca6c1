"""Affine maps, on which every rate is known in closed form."""

import math

import pytest
import torch

from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem, iterate
from tests.inference.acceleration import maps


def starts(rows, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 10 * torch.randn(rows, size, generator=generator, dtype=torch.get_default_dtype())


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
def test_plain_steps_converge_at_the_spectral_radius(rho):
    step, fixed_point, _ = maps.affine([rho])
    theta0 = starts(7, 1)
    found = iterate(Plain(), theta0, step, steps=10_000, tolerance=1e-8)
    first = (1 - rho) * (theta0 - fixed_point).abs()[:, 0]
    expected = ((math.log(1e-8) - first.log()) / math.log(rho)).ceil() + 1
    assert (found.evaluations - expected).abs().max() <= 1  # for rounding
    assert found.converged.all()
    assert (found.theta - fixed_point).abs().max() <= 1e-8 / (1 - rho) + 1e-12


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_anderson_of_depth_d_solves_d_dimensions_in_d_plus_one_evaluations(depth):
    step, fixed_point, _ = maps.affine([0.99 - 0.15 * i for i in range(depth)])
    theta0 = starts(20, depth)
    seen = []
    found = iterate(
        *(Anderson(depth), theta0, step),
        **{"steps": depth + 2, "tolerance": 1e-9, "callback": lambda p: seen.append(p.residual)},
    )
    # the point of evaluation d + 2 was chosen after d + 1 of them
    assert (found.evaluations == depth + 2).all()
    assert found.converged.all()
    assert (found.theta - fixed_point).abs().max() < 1e-7
    assert seen[depth].min() > 1e-5  # the evaluation before was not there yet
    assert not found.rejected.any()


def test_more_depth_than_dimensions_does_no_harm():
    step, fixed_point, _ = maps.affine([0.99, 0.8])
    found = iterate(Anderson(6), starts(20, 2), step, steps=30, tolerance=1e-9)
    assert found.converged.all()
    assert (found.theta - fixed_point).abs().max() < 1e-6
    assert found.evaluations.max() <= 6


def test_a_cycle_of_squarem_multiplies_errors_by_its_polynomial():
    """The error along an eigenvector of eigenvalue l is multiplied by l (1 - s (1 - l))^2."""
    eigenvalues = torch.tensor([0.9, 0.7, 0.4])
    step, fixed_point, vectors = maps.affine(eigenvalues)
    theta0 = starts(5, 3)
    seen = []
    iterate(
        *(Squarem(longest=1e6), theta0, step),
        **{"steps": 4, "tolerance": 1e-12, "callback": lambda p: seen.append(p.theta)},
    )
    error = (theta0 - fixed_point) @ vectors
    r, v = (eigenvalues - 1) * error, (eigenvalues - 1) ** 2 * error
    s = (r.norm(dim=-1) / v.norm(dim=-1))[:, None]
    assert (s > 1 / 0.6).all()
    assert (s < 1 / 0.1).all()
    factor = (1 - s * (1 - eigenvalues)) ** 2
    found = ((seen[2] - fixed_point) @ vectors, (seen[3] - fixed_point) @ vectors)
    torch.testing.assert_close(found[0], factor * error)
    torch.testing.assert_close(found[1], eigenvalues * factor * error)


def test_squarem_solves_one_dimension_in_one_cycle_unless_its_step_is_bounded():
    step, fixed_point, _ = maps.affine([0.99])  # s = 100
    theta0 = starts(6, 1)
    free = iterate(Squarem(longest=1e3), theta0, step, steps=50, tolerance=1e-10)
    assert (free.evaluations == 3).all()
    assert (free.theta - fixed_point).abs().max() < 1e-8
    # with bounds 1, 4, 16, 64 and 256: 2 evaluations, then 3 per cycle
    bounded = iterate(Squarem(), theta0, step, steps=50, tolerance=1e-10)
    assert (bounded.evaluations == 2 + 4 * 3).all()


def test_both_need_a_fraction_of_the_plain_evaluations():
    """A fraction of sqrt(1 - rho), which is also that of conjugate gradients."""
    rho = 0.995
    step, fixed_point, _ = maps.affine([rho, 0.97, 0.9, 0.8, 0.6, 0.3, 0.1], power=1)
    counts = {}
    for accelerator in (Plain(), Squarem(), Anderson(3)):
        found = iterate(accelerator, starts(25, 7), step, steps=40_000, tolerance=1e-9)
        assert found.converged.all()
        assert (found.theta - fixed_point).abs().max() < 1e-9 * 7**0.5 / (1 - rho)
        assert found.values.diff(dim=0).min() >= -1e-12
        counts[type(accelerator)] = float(found.evaluations.median())
    most = math.sqrt(1 - rho) * counts[Plain]
    assert counts[Squarem] < most
    assert counts[Anderson] < most
