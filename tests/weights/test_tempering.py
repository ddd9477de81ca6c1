import math

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import effective_sample_size, tempering_exponent


def test_two_weights_have_a_closed_form():
    """ESS of (1, r) is (1 + r)^2/(1 + r^2); it equals 2 f where r solves a quadratic equation."""
    spread = torch.tensor([5.0, 50.0, 5e3, 5e8])
    log_w = torch.stack([torch.zeros(4), -spread])
    fraction = 0.8
    a = 2 * fraction - 1
    ratio = (1 - math.sqrt(1 - a**2)) / a
    expected = -math.log(ratio) / spread
    torch.testing.assert_close(tempering_exponent(log_w, fraction), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_reaches_the_effective_sample_size_exactly(fraction):
    log_w = torch.tensor([3.0, 30.0, 300.0]) * torch.randn(200, 3)
    size = effective_sample_size(tempering_exponent(log_w, fraction) * log_w)
    assert (effective_sample_size(log_w) < 0.05 * 200).all()
    torch.testing.assert_close(size, torch.full((3,), fraction * 200), rtol=1e-10, atol=0)


def test_weights_that_are_even_enough_are_left_alone():
    log_w = torch.stack([torch.zeros(50), 0.1 * torch.randn(50), torch.full((50,), -7.0)], dim=1)
    assert tempering_exponent(log_w).tolist() == [1.0, 1.0, 1.0]


def test_zero_weights_stay_zero():
    log_w = torch.tensor([0.0, -3.0, -6.0, -9.0, -math.inf, -math.inf])
    beta = tempering_exponent(log_w, 0.5)
    torch.testing.assert_close(effective_sample_size(beta * log_w[:4]), torch.tensor(3.0))


def test_out_of_reach_makes_the_others_equal():
    log_w = torch.full((10, 2), -math.inf)
    log_w[:3, 0] = torch.tensor([0.0, -100.0, -1e6])
    beta = tempering_exponent(log_w, 0.5)
    assert beta.tolist() == [2.0**-60, 2.0**-60]
    torch.testing.assert_close(effective_sample_size(beta * log_w), torch.tensor([3.0, 0.0]))


def test_is_detached():
    log_w = torch.randn(10, requires_grad=True)
    assert not tempering_exponent(log_w).requires_grad


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, math.nan])
def test_refuses_shares_it_cannot_reach(fraction):
    with pytest.raises(InvalidArgument, match="strictly between"):
        tempering_exponent(torch.zeros(3), fraction)
