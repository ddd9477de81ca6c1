"""Thermodynamic sums against the exact geometric path between two normals."""

import math

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.objectives import ForwardKL, PowerMean, ReverseKL, Thermodynamic

# p(z, x) = N(z; 0, 1) N(x; z, 1) at x = 1.3, and the guide q = N(0.2, 0.9^2)
X, MEAN, SCALE = 1.3, 0.2, 0.9
LOG_EVIDENCE = -0.5 * math.log(4 * math.pi) - X**2 / 4


def log_weight(z):
    log_p = -math.log(2 * math.pi) - (z**2 + (X - z) ** 2) / 2
    log_q = -0.5 * math.log(2 * math.pi) - math.log(SCALE) - (z - MEAN) ** 2 / (2 * SCALE**2)
    return log_p - log_q


def expectation(beta):
    """``E log w`` under the normal proportional to ``q^(1 - beta) p^beta``, in closed form."""
    precision = (1 - beta) / SCALE**2 + 2 * beta
    centre = ((1 - beta) * MEAN / SCALE**2 + beta * X) / precision
    # log w is quadratic in z: its value at the mean, and half its second derivative times variance.
    return log_weight(centre) + 0.5 * (1 / SCALE**2 - 2) / precision


def even(intervals):
    return tuple(j / intervals for j in range(intervals + 1))


@pytest.fixture
def quantiles():
    """Log-weights of evenly spaced quantiles of q, as many particles: expectations to 1e-5."""
    num_particles = 200_000
    u = (torch.arange(num_particles) + 0.5) / num_particles
    return log_weight(MEAN + SCALE * torch.special.ndtri(u))


#: lower and upper sums; they enclose the log-evidence -1.6880
TABLE = {
    1: (-1.9593, -1.5132),
    2: (-1.8122, -1.5892),
    5: (-1.7347, -1.6455),
    10: (-1.7108, -1.6662),
    50: (-1.6925, -1.6836),
}


@pytest.mark.parametrize("intervals", TABLE)
def test_the_table_of_the_conjugate_normal(intervals, quantiles):
    partition = even(intervals)
    expected = [expectation(beta) for beta in partition]
    lower, upper = sum(expected[:-1]) / intervals, sum(expected[1:]) / intervals
    assert (round(lower, 4), round(upper, 4)) == TABLE[intervals]
    assert lower < LOG_EVIDENCE < upper
    assert -Thermodynamic(partition)(quantiles).item() == pytest.approx(lower, abs=1e-4)
    assert Thermodynamic(partition, "right")(quantiles).item() == pytest.approx(upper, abs=1e-4)


def test_uneven_partitions(quantiles):
    partition = (0.0, 0.1, 0.15, 0.7, 1.0)
    widths = [0.1, 0.05, 0.55, 0.3]
    lower = sum(w * expectation(b) for w, b in zip(widths, partition[:-1], strict=True))
    upper = sum(w * expectation(b) for w, b in zip(widths, partition[1:], strict=True))
    assert -Thermodynamic(partition)(quantiles).item() == pytest.approx(lower, abs=1e-4)
    assert Thermodynamic(partition, "right")(quantiles).item() == pytest.approx(upper, abs=1e-4)


def test_one_interval_is_the_evidence_bound_below_and_above():
    log_w = 3 * torch.randn(12, 5)
    left, right = Thermodynamic((0.0, 1.0)), Thermodynamic((0.0, 1.0), "right")
    torch.testing.assert_close(left(log_w), ReverseKL()(log_w))
    torch.testing.assert_close(left.credit(log_w), ReverseKL().credit(log_w))
    torch.testing.assert_close(right(log_w), ForwardKL()(log_w))


def test_every_set_of_particles_is_enclosed():
    """The integrand grows with beta on any weights, so the sums enclose their log-mean."""
    log_w = 3 * torch.randn(12, 300)
    importance_weighted = -PowerMean(0.0)(log_w)
    below, above = ReverseKL()(log_w).neg(), ForwardKL()(log_w)
    for intervals in (1, 2, 4, 8, 16, 32):
        lower = -Thermodynamic(even(intervals))(log_w)
        upper = Thermodynamic(even(intervals), "right")(log_w)
        assert (lower < importance_weighted).all()
        assert (importance_weighted < upper).all()
        # Halving the intervals tightens both.
        assert (lower >= below).all()
        assert (upper <= above).all()
        below, above = lower, upper
    torch.testing.assert_close(
        upper - lower, (ForwardKL()(log_w) + ReverseKL()(log_w)) / 32, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(
    "partition", [(), (0.0,), (1.0,), (0.0, 0.5), (0.1, 1.0), (0.0, 0.5, 0.5, 1.0), (1.0, 0.0)]
)
def test_what_is_no_partition_is_refused(partition):
    with pytest.raises(InvalidArgument, match="partition"):
        Thermodynamic(partition)


def test_another_bound_is_refused():
    with pytest.raises(InvalidArgument, match="bound="):
        Thermodynamic((0.0, 1.0), "middle")
