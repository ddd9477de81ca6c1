import math

import pytest
import torch
from torch.distributions import Normal

from pyro_klmodes.diagnostics import corrected_moments
from pyro_klmodes.errors import InvalidArgument


def guide_and_posterior(shape, mean=0.4, sd=0.8, num_draws=4000):
    """Standard normal draws weighted towards Normal(mean, sd), with element-wise log-weights."""
    x = torch.randn(num_draws, *shape)
    return x, Normal(mean, sd).log_prob(x) - Normal(0.0, 1.0).log_prob(x)


class TestLaw:
    def test_shift_and_ratio_within_their_errors(self):
        """Shift mean/sd and ratio 1/sd, over 300 cells of weights of their own.

        The squares of the errors in standard units have mean 1 and standard deviation 1.4 (more
        for the tails of the weights): their mean over 300 cells is known to about 0.1.
        """
        x, log_w = guide_and_posterior((300,))
        found = corrected_moments(log_w, {"x": x})["x"]
        for value, error, exact in (
            (found.shift, found.shift_error, 0.4 / 0.8),
            (found.sd_ratio, found.sd_ratio_error, 1 / 0.8),
        ):
            standard = (value - exact) / error
            assert 0.6 < standard.square().mean() < 1.6
            assert abs(value.mean() - exact) < 0.01
        assert (found.shift_error < 0.1).all()

    def test_the_guide_itself_has_neither_and_no_error(self):
        x = torch.randn(500, 3)
        found = corrected_moments(torch.full((500,), 7.0), {"x": x})["x"]
        torch.testing.assert_close(found.shift, torch.zeros(3), rtol=0, atol=1e-12)
        torch.testing.assert_close(found.sd_ratio, torch.ones(3))
        assert (found.shift_error < 1e-12).all()
        assert (found.sd_ratio_error < 1e-12).all()
        torch.testing.assert_close(found.mean, x.mean(0))
        torch.testing.assert_close(found.corrected_sd, x.std(0, correction=0))

    def test_enumerated_by_hand(self):
        # too few draws for a tail, so that nothing is smoothed
        x = torch.tensor([0.0, 4.0])
        found = corrected_moments(torch.tensor([1.0, 3.0]).log(), {"x": x})["x"]
        assert found.corrected_mean == 3.0
        assert float(found.corrected_sd) == pytest.approx(math.sqrt(3))
        assert float(found.shift) == pytest.approx(1 / math.sqrt(3))
        assert float(found.sd_ratio) == pytest.approx(2 / math.sqrt(3))
        # What each draw adds: v d - u e to the difference of means, v (d^2 - 3) / (2 sd) to the
        # sd, with the deviations d = -3, 1 and e = -2, 2 and the weights v = 1/4, 3/4 and u = 1/2.
        sd, shift = math.sqrt(3), 1 / math.sqrt(3)
        first = (0.25 * -3 - 0.5 * -2 - shift * 0.25 * (9 - 3) / (2 * sd)) / sd
        second = (0.75 * 1 - 0.5 * 2 - shift * 0.75 * (1 - 3) / (2 * sd)) / sd
        assert float(found.shift_error) == pytest.approx(math.hypot(first, second))


class TestPlaces:
    def test_a_joint_weight_shifts_the_site_it_belongs_to(self):
        x, terms = guide_and_posterior((2,))
        y = torch.randn(4000, 3)
        found = corrected_moments(terms[:, 0], {"x": x, "y": y})
        assert found["x"].shift[0] > 5 * found["x"].shift_error[0]
        assert found["y"].shift.shape == (3,)
        rest = torch.cat([found["x"].shift[1:], found["y"].shift])
        error = torch.cat([found["x"].shift_error[1:], found["y"].shift_error])
        assert (rest.abs() < 4 * error).all()

    def test_local_weights_stay_in_their_cell(self):
        x, terms = guide_and_posterior((4, 2))
        terms[:, [0, 1, 3]] = 0.0
        found = corrected_moments(terms.sum(2), {"x": x})["x"]
        assert found.shift.shape == (4, 2)
        assert (found.shift[2] > 5 * found.shift_error[2]).all()
        assert (found.shift[[0, 1, 3]].abs() < 1e-12).all()

    def test_what_never_varies(self):
        found = corrected_moments(torch.randn(100), {"x": torch.full((100, 2), 3.0)})["x"]
        torch.testing.assert_close(found.shift, torch.zeros(2), rtol=0, atol=1e-12)
        assert found.sd_ratio.tolist() == [1.0, 1.0]

    def test_counts_are_accepted(self):
        found = corrected_moments(torch.zeros(4), {"n": torch.tensor([0, 1, 2, 3])})["n"]
        assert found.mean == 1.5


@pytest.mark.parametrize(
    ("log_w", "values", "message"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 2), r"'x' have shape \(5, 2\)"),
        (torch.zeros(5), torch.zeros(4), r"'x' have shape \(4,\)"),
        (torch.zeros(1), torch.zeros(1), "fewer than two draws"),
        (torch.tensor([0.0, math.nan]), torch.zeros(2), "NaN"),
        (torch.zeros(2), torch.tensor([0.0, math.inf]), "'x' are not all finite"),
    ],
)
def test_bad_input_is_refused(log_w, values, message):
    with pytest.raises(InvalidArgument, match=message):
        corrected_moments(log_w, {"x": values})
