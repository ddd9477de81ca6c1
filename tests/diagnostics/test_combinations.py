"""Extreme linear combinations, from normals whose covariances are known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from pyro_klmodes.diagnostics import combinations, corrected_moments
from pyro_klmodes.errors import InvalidArgument

# Generalised eigenvalues with the identity: 0.8, 0.5 and 0.2. All weights are bounded.
COVARIANCE = [[0.5, 0.3, 0.0], [0.3, 0.5, 0.0], [0.0, 0.0, 0.5]]
MEAN = [0.0, 0.0, 0.3]


def guide_and_posterior(*cells, num_draws=4000):
    """Standard normal draws weighted towards a correlated normal with another mean."""
    x = torch.randn(num_draws, *cells, 3)
    target = MultivariateNormal(torch.tensor(MEAN), torch.tensor(COVARIANCE))
    return x, target.log_prob(x) + 0.5 * x.square().sum(-1)


class TestLaw:
    def test_ratios_and_shift_within_their_errors(self):
        """Over 100 cells the squares of the errors in standard units have mean 1, to about 0.2.

        Directions are found with an error of their own, which is of second order at an extreme.
        """
        x, log_w = guide_and_posterior(100)
        found = combinations(log_w, x)
        narrow, wide, _ = found.sd_ratio
        for value, error, exact in (
            (narrow, found.sd_ratio_error[0], 0.8**-0.5),
            (wide, found.sd_ratio_error[1], 0.2**-0.5),
            (found.shift[2], found.shift_error[2], 0.3 * 0.5**-0.5),
        ):
            assert 0.6 < ((value - exact) / error).square().mean() < 1.6
            assert abs(value.mean() - exact) < 0.02 * exact

    def test_the_directions_are_the_eigenvectors(self):
        x, log_w = guide_and_posterior(num_draws=40_000)
        narrow, wide, shifted = combinations(log_w, x).coefficients
        for found, exact in (
            (narrow, [0.5**0.5, 0.5**0.5, 0.0]),
            (wide, [0.5**0.5, -(0.5**0.5), 0.0]),
            (shifted, [0.0, 0.0, 1.0]),
        ):
            unit = found / found.norm()
            assert abs(float(unit @ torch.tensor(exact, dtype=unit.dtype))) > 0.99

    def test_the_choice_of_a_direction_is_no_evidence_for_it(self):
        """Weights that know nothing of 20 numbers: the extreme ratios in the noise are 1."""
        x, log_w = torch.randn(400, 200, 20), 0.5 * torch.randn(400, 200)
        found = combinations(log_w, x)
        in_sample = corrected_moments(log_w, {"x": x})["x"].sd_ratio.amin(-1)
        assert in_sample.mean() < 0.97
        for k in (0, 1):
            standard = (found.sd_ratio[k] - 1) / found.sd_ratio_error[k]
            assert abs(standard.mean()) < 4 / 200**0.5
            assert 0.6 < standard.square().mean() < 1.6

    def test_the_guide_itself_has_neither_and_no_error(self):
        found = combinations(torch.full((500,), 7.0), torch.randn(500, 3))
        ones, zeros = torch.ones(3).double(), torch.zeros(3).double()
        torch.testing.assert_close(found.sd_ratio, ones, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.shift, zeros, rtol=0, atol=1e-9)
        assert (found.sd_ratio_error < 1e-9).all()


class TestInvariance:
    def test_units_do_not_matter(self):
        x, log_w = guide_and_posterior()
        units = torch.tensor([1e-4, 1.0, 1e3], dtype=torch.float64)
        first, second = combinations(log_w, x), combinations(log_w, x * units + 5.0)
        torch.testing.assert_close(first.sd_ratio, second.sd_ratio, rtol=1e-6, atol=0)
        torch.testing.assert_close(first.shift.abs(), second.shift.abs(), rtol=1e-6, atol=1e-9)

    def test_every_cell_is_by_itself(self):
        x, log_w = guide_and_posterior(2, 3)
        together, alone = combinations(log_w, x), combinations(log_w[:, 1, 2], x[:, 1, 2])
        torch.testing.assert_close(together.sd_ratio[:, 1, 2], alone.sd_ratio)
        torch.testing.assert_close(together.sd_ratio_error[:, 1, 2], alone.sd_ratio_error)

    def test_what_does_not_vary_is_no_direction(self):
        x, log_w = guide_and_posterior()
        constant, twice = torch.full((len(x), 1), 3.0), 2 * x[:, :1]
        plain = combinations(log_w, x)
        padded = combinations(log_w, torch.cat([x, constant, twice], dim=1))
        torch.testing.assert_close(plain.sd_ratio, padded.sd_ratio, rtol=1e-5, atol=0)
        assert (padded.coefficients[:, 3] == 0).all()

    def test_more_numbers_than_draws_are_noise_and_no_error(self):
        found = combinations(0.3 * torch.randn(100), torch.randn(100, 80))
        assert bool(found.sd_ratio.isfinite().all())
        standard = (found.sd_ratio - 1).abs() / found.sd_ratio_error
        assert bool((standard < 4).all())


@pytest.mark.parametrize(
    ("log_w", "values", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 2), "at least four draws"),
        (torch.zeros(8), torch.zeros(8), "one dimension more than log_w"),
        (torch.zeros(8), torch.zeros(6, 2), "must begin with the shape of log_w"),
        (torch.full((8,), math.nan), torch.zeros(8, 2), "NaN"),
        (torch.tensor([-math.inf, 0.0] * 4), torch.zeros(8, 2), "all weights of a cell are zero"),
        (torch.zeros(8), torch.full((8, 2), math.inf), "not all finite"),
    ],
)
def test_bad_input_is_named(log_w, values, message):
    with pytest.raises(InvalidArgument, match=message):
        combinations(log_w, values)
