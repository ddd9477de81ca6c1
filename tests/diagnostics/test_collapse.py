"""Active units and mutual information, against closed forms and quadrature."""

import math

import pytest
import torch
from torch.distributions import Normal

from pyro_klmodes.diagnostics import active_units, mutual_information
from pyro_klmodes.errors import InvalidArgument


def linear_gaussian(num_data, slope, scale, draws, compared):
    """q(z|x) = N(slope x, scale^2) with x standard normal."""
    x = torch.randn(num_data)
    z = slope * x + scale * torch.randn(draws, num_data)
    others = torch.stack([x.roll(-m) for m in range(compared)], -1)  # (N, M)
    return x, Normal(slope * others, scale).log_prob(z.unsqueeze(-1))


@pytest.mark.parametrize(("slope", "scale"), [(0.5, 1.0), (1.0, 0.5), (2.0, 0.4)])
def test_the_information_of_a_linear_gaussian(slope, scale):
    _, log_q = linear_gaussian(2000, slope, scale, draws=2, compared=400)
    found = mutual_information(log_q)
    exact = 0.5 * math.log1p(slope**2 / scale**2)
    assert found.error < 0.04
    assert abs(found.value - exact) < 4 * found.error
    assert not found.saturated
    assert found.limit == pytest.approx(math.log(400))


def test_which_of_a_few_data_it_is():
    """With all data compared, the estimate is unbiased; the exact value by quadrature."""
    x, log_q = linear_gaussian(6, 1.0, 0.7, draws=4000, compared=6)
    z = torch.linspace(-8.0, 8.0, 4001)
    each = Normal(x[:, None], 0.7).log_prob(z)  # (N, G)
    aggregate = torch.logsumexp(each, 0) - math.log(6)
    exact = (each.exp() * (each - aggregate)).mean(0).sum() * (z[1] - z[0])
    found = mutual_information(log_q)
    per_draw = (log_q[..., 0] - torch.logsumexp(log_q, -1) + math.log(6)).mean(1)
    error = per_draw.std() / math.sqrt(4000)
    assert error < 0.01
    assert abs(found.value - exact) < 4 * error


def test_it_never_exceeds_its_limit_and_says_so():
    _, log_q = linear_gaussian(200, 100.0, 1e-3, draws=3, compared=50)
    found = mutual_information(log_q)
    exact = 0.5 * math.log1p((100.0 / 1e-3) ** 2)
    assert found.value == pytest.approx(math.log(50), abs=1e-3)
    assert found.value < exact - 5
    assert found.saturated


def test_it_is_biased_down_with_few_data_to_compare_with():
    values = {}
    for compared in (2, 8, 64):
        torch.manual_seed(1)
        _, log_q = linear_gaussian(4000, 1.0, 0.5, draws=2, compared=compared)
        values[compared] = mutual_information(log_q).value
    exact = 0.5 * math.log1p(4.0)
    assert values[2] < values[8] < values[64] < exact + 0.02
    assert values[2] < exact - 0.3


def test_a_guide_that_is_the_same_for_all_data_tells_nothing():
    found = mutual_information(torch.randn(5, 30, 1).expand(5, 30, 30))
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.error == pytest.approx(0.0, abs=1e-12)


def test_active_units_by_the_variance_of_means():
    x = torch.randn(3000, 1)
    slope = torch.tensor([1.0, 0.2, 0.0, 0.05])
    found = active_units(slope * x + torch.randn(30, 3000, 4))
    torch.testing.assert_close(found.variance, slope**2, rtol=0.1, atol=3e-3)
    assert found.active.tolist() == [True, True, False, False]
    assert found.count == 2


def test_the_noise_of_few_draws_does_not_count():
    """Means of 20 draws of variance one have variance 0.05, five times the threshold."""
    values = torch.randn(20, 3000, 2)
    assert values.mean(0).var(0).min() > 0.04
    found = active_units(values)
    assert found.variance.abs().max() < 5e-3
    assert found.count == 0
    assert active_units(values + 0.5 * torch.randn(3000, 1), threshold=0.5).count == 0


def test_units_keep_their_shape():
    assert active_units(torch.randn(3, 4, 2, 5)).active.shape == (2, 5)
    assert active_units(torch.randn(3, 4)).active.shape == ()


@pytest.mark.parametrize(
    "values", [torch.zeros(5), torch.zeros(1, 5), torch.zeros(5, 1), torch.full((3, 3), math.nan)]
)
def test_active_units_refuse(values):
    with pytest.raises(InvalidArgument, match="active_units"):
        active_units(values)


@pytest.mark.parametrize(
    "log_q",
    [
        torch.zeros(3, 3),
        torch.zeros(2, 3, 1),
        torch.full((1, 2, 2), math.nan),
        torch.full((1, 2, 2), -math.inf),
    ],
)
def test_mutual_information_refuses(log_q):
    with pytest.raises(InvalidArgument, match="mutual_information"):
        mutual_information(log_q)


def test_a_draw_that_is_impossible_for_others_is_fine():
    log_q = torch.full((2, 4, 4), -math.inf)
    log_q[..., 0] = -1.0
    assert mutual_information(log_q).value == pytest.approx(math.log(4))
