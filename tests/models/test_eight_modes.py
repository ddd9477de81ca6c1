"""The ring of eight modes against a grid, and its measures against exact sector masses."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from models import eight_modes

STEP = 0.05


def grid():
    """Points of a square grid, (points^2, 2), and the log density there."""
    axis = torch.arange(-15, 15 + STEP / 2, STEP)
    z = torch.cartesian_prod(axis, axis)
    return z, eight_modes.target().log_prob(z)


def sector_masses():
    """Exact mass of the sector around each mode: z is nearest to the mode at its angle."""
    half = math.pi / 8

    def mass(sector, mode):
        # A unit normal at (8, 0) in polar coordinates.
        centre = (sector - mode) * math.pi / 4

        def integrand(angle):
            along, across = 8 * math.cos(angle), 8 * math.sin(angle)
            # The radial integral of r exp(-(r - along)^2 / 2) in closed form.
            radial = stats.norm.pdf(along) + along * stats.norm.cdf(along)
            return stats.norm.pdf(across) * radial

        return integrate.quad(integrand, centre - half, centre + half, epsabs=1e-14)[0]

    kernel = np.array([mass(offset, 0) for offset in range(8)])
    return np.array([kernel[(k - np.arange(8)) % 8] @ eight_modes.MASSES for k in range(8)])


def test_masses_and_means():
    assert eight_modes.masses().sum().item() == pytest.approx(1, abs=1e-12)
    assert len(set(eight_modes.MASSES)) > 1
    radii = eight_modes.means().norm(dim=-1)
    torch.testing.assert_close(radii, torch.full((8,), 8.0))
    gaps = (eight_modes.means() - eight_modes.means().roll(1, 0)).norm(dim=-1)
    torch.testing.assert_close(gaps, torch.full((8,), 16 * math.sin(math.pi / 8)))


def test_moments_and_evidence_agree_with_a_grid():
    z, log_density = grid()
    weight = log_density.exp()[:, None] * STEP**2
    moments = eight_modes.problem().reference["z"]
    assert weight.sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close((weight * z).sum(0), moments.mean, rtol=0, atol=1e-9)
    variance = (weight * (z - moments.mean) ** 2).sum(0)
    torch.testing.assert_close(variance.sqrt(), moments.sd, rtol=0, atol=1e-9)


def test_shares_of_draws_are_the_masses_of_the_sectors():
    exact = torch.as_tensor(sector_masses())
    assert exact.sum().item() == pytest.approx(1, abs=1e-10)
    # Stated in the docstring of mode_shares.
    assert 0 < (exact - eight_modes.masses()).abs().max() < 0.0004

    draws = 40_000
    shares = eight_modes.mode_shares(eight_modes.target().sample((draws,)))
    assert ((shares - exact).abs() < 4 * (exact * (1 - exact) / draws).sqrt()).all()


def test_entropy():
    assert eight_modes.mode_entropy(torch.eye(8)[3]) == 0
    assert eight_modes.mode_entropy(torch.full((8,), 1 / 8)) == pytest.approx(1)
    two = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0])
    assert eight_modes.mode_entropy(two) == pytest.approx(1 / 3)
    expected = stats.entropy(eight_modes.MASSES) / math.log(8)
    assert eight_modes.mode_entropy(eight_modes.masses()) == pytest.approx(expected)


def test_shares_take_any_batch_shape():
    z = eight_modes.target().sample((3, 5))
    torch.testing.assert_close(
        eight_modes.mode_shares(z), eight_modes.mode_shares(z.reshape(15, 2))
    )
