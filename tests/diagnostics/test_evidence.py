import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from pyro_klmodes.diagnostics import evidence
from pyro_klmodes.errors import InvalidArgument

INF = math.inf

# z ~ N(0, 1), x | z ~ N(z, 1), x = 1.3, and a guide that is off centre and too wide
X, GUIDE = torch.tensor(1.3), Normal(0.2, 0.9)
POSTERIOR = Normal(X / 2, math.sqrt(0.5))
LOG_Z = float(Normal(0.0, math.sqrt(2.0)).log_prob(X))


def log_weight(z):
    return Normal(0.0, 1.0).log_prob(z) + Normal(z, 1.0).log_prob(X) - GUIDE.log_prob(z)


def toy_log_w(*shape):
    return log_weight(GUIDE.sample(shape))


def quadrature(density, function, num_nodes=200):
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    z = density.loc + density.scale * torch.from_numpy(nodes)
    return float((torch.from_numpy(weights) * function(z)).sum() / math.sqrt(2 * math.pi))


def tempered(exponent):
    """The normal density proportional to q w^b: both q and p are normal."""
    precision = (1 - exponent) / GUIDE.variance + exponent / POSTERIOR.variance
    centre = (1 - exponent) * GUIDE.mean / GUIDE.variance
    centre = centre + exponent * POSTERIOR.mean / POSTERIOR.variance
    return Normal(centre / precision, precision.rsqrt())


def exact_values():
    elbo = quadrature(GUIDE, log_weight)
    eubo = quadrature(POSTERIOR, log_weight)
    path = [quadrature(tempered(torch.tensor(i / 10)), log_weight) for i in range(11)]
    return {
        "ELBO": elbo,
        "EUBO": eubo,
        "log mean w": LOG_Z,
        "jackknife": LOG_Z,
        "CUBO_2": math.log(quadrature(GUIDE, lambda z: (2 * log_weight(z)).exp())) / 2,
        "thermodynamic lower": sum(path[:-1]) / 10,
        "thermodynamic upper": sum(path[1:]) / 10,
        "KL(q||p)": LOG_Z - elbo,
        "KL(p||q)": eubo - LOG_Z,
    }


def test_the_exact_values_are_the_published_order():
    """ELBO < thermodynamic lower < log Z < thermodynamic upper < EUBO, log Z < CUBO_2."""
    exact = exact_values()
    assert exact["ELBO"] == pytest.approx(-1.9593, abs=5e-5)
    assert exact["EUBO"] == pytest.approx(-1.5132, abs=5e-5)
    assert exact["CUBO_2"] == pytest.approx(-1.5580, abs=5e-5)
    assert exact["thermodynamic lower"] == pytest.approx(-1.7108, abs=5e-5)
    assert exact["thermodynamic upper"] == pytest.approx(-1.6662, abs=5e-5)
    assert pytest.approx(-1.6880, abs=5e-5) == LOG_Z


def test_every_quantity_is_within_its_error():
    """Fifty data with the same exact values: their sum is 50 times as large.

    All of them share the estimates' error of four standard errors; the bias of logarithms of
    averages, half the squared relative error of each of the 50, is added.
    """
    num_cells, num_draws = 50, 2000
    log_w = toy_log_w(num_draws, num_cells)
    reference = log_weight(POSTERIOR.sample((num_draws, num_cells)))
    table = evidence(log_w, reference_log_w=reference, num_bootstrap=50)
    for name, exact in exact_values().items():
        found = table[name]
        bias = found.error**2 / 2  # errors add in quadrature, so that this is the sum of biases
        assert abs(found.value - num_cells * exact) < 4 * found.error + bias, name
        assert 0.01 < found.error < 5, name


def test_kinds():
    table = evidence(toy_log_w(200), reference_log_w=toy_log_w(200), num_bootstrap=5)
    lower = [name for name, one in table.items() if one.kind == "lower bound"]
    upper = [name for name, one in table.items() if one.kind == "upper bound"]
    assert lower == ["ELBO", "IWAE_2", "IWAE_4", "IWAE_8", "IWAE_16"]
    assert upper == ["EUBO"]
    assert all(one.name == name for name, one in table.items())


def test_multi_sample_bounds_against_quadrature():
    """E log((w_1 + w_2)/2) on a grid, and the law K (log Z - IWAE_K) -> Var(w/Z)/2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    log_w = log_weight(GUIDE.loc + GUIDE.scale * torch.from_numpy(nodes))
    mass = torch.from_numpy(weights) / math.sqrt(2 * math.pi)
    pair = torch.logaddexp(log_w.unsqueeze(1), log_w) - math.log(2)
    exact = float(mass @ pair @ mass)

    table = evidence(toy_log_w(200_000), num_bootstrap=20)
    assert abs(table["IWAE_2"].value - exact) < 4 * table["IWAE_2"].error < 0.01
    variance = float(mass @ (2 * log_w).exp()) / math.exp(2 * LOG_Z) - 1
    bound = table["IWAE_64"]
    # the next order of the gap is a share of about 1/K of it
    assert abs(LOG_Z - bound.value - variance / 128) < 4 * bound.error + 0.1 * variance / 128


def test_multi_sample_bounds_of_nested_groups_rise():
    # of 1280 = 10 * 128 draws all groups are full, and Jensen's inequality holds for every sample
    table = evidence(3 * torch.randn(1280, 4), num_bootstrap=2)
    names = ["ELBO", *[f"IWAE_{2**i}" for i in range(1, 8)], "log mean w"]
    values = [table[name].value for name in names]
    assert values == sorted(values)
    assert "IWAE_256" not in table


def test_the_jackknife_removes_the_bias():
    """Standard normal log-weights, S = 40: log Z = 1/2, bias -(e - 1)/80 = -0.021.

    4000 repetitions as cells; the standard error of their mean is 0.2 / sqrt(4000) = 0.0033. What
    is left is of order 1/S^2; the moments of the log-normal make it 0.006.
    """
    log_w = torch.randn(40, 4000)
    table = evidence(log_w, num_bootstrap=2)
    plain = table["log mean w"].value / 4000 - 0.5
    corrected = table["jackknife"].value / 4000 - 0.5
    assert plain < -0.015
    assert abs(corrected) < 0.006 + 4 * 0.0033
    assert abs(corrected) < abs(plain) / 2
    by_hand = []
    for i in range(40):
        left = torch.cat([log_w[:i], log_w[i + 1 :]])
        by_hand.append(left.logsumexp(0) - math.log(39))
    mean_left = torch.stack(by_hand).mean(0)
    jackknife = 40 * (log_w.logsumexp(0) - math.log(40)) - 39 * mean_left
    assert table["jackknife"].value == pytest.approx(float(jackknife.sum()), rel=1e-9)


def test_a_finite_sample_of_the_upper_bound_is_below_the_evidence():
    """Why CUBO_2 is called an estimate: log w ~ N(-1, 2) has log Z = 0 and CUBO_2 = 1.

    Averages over repetitions, which are the cells: with two draws below log Z even, by more than
    0.2 (standard error 0.02), and with a thousand still short of 1 by more than four errors.
    """
    few = evidence(math.sqrt(2) * torch.randn(2, 4000) - 1, num_bootstrap=2)["CUBO_2"]
    assert few.value / 4000 < -0.2
    log_w = math.sqrt(2) * torch.randn(1000, 400) - 1
    many = evidence(log_w, num_bootstrap=40)["CUBO_2"]
    assert 0.5 < many.value / 400 < 1 - 4 * many.error / 400 < 1


class TestErrors:
    def test_are_the_spread_of_repetitions(self):
        """150 repetitions know a standard deviation to 6 %; four times that is allowed."""
        names = ("ELBO", "IWAE_8", "log mean w", "CUBO_2", "thermodynamic upper", "KL(q||p)")
        tables = [evidence(toy_log_w(300), num_bootstrap=40, seed=i) for i in range(150)]
        for name in names:
            values = torch.tensor([table[name].value for table in tables])
            errors = torch.tensor([table[name].error for table in tables])
            assert float(values.std() / errors.mean()) == pytest.approx(1.0, abs=0.24), name

    def test_of_cells_that_depend_on_each_other_are_not_those_of_independent_ones(self):
        """Nine times the same cell: the error is nine times as large, and not three times."""
        log_w = toy_log_w(500, 1).expand(500, 9)
        one = evidence(log_w[:, :1], seed=1)["ELBO"]
        nine = evidence(log_w, seed=1)["ELBO"]
        assert nine.value == pytest.approx(9 * one.value)
        assert nine.error == pytest.approx(9 * one.error)

    def test_seed_is_local(self):
        log_w = toy_log_w(100)
        state = torch.get_rng_state()
        one, other = evidence(log_w, seed=3), evidence(log_w, seed=3)
        assert bool((torch.get_rng_state() == state).all())
        assert one == other
        assert evidence(log_w, seed=4)["ELBO"].error != one["ELBO"].error

    def test_constant_weights_are_exact(self):
        table = evidence(torch.full((40, 3), -2.0), num_bootstrap=5)
        for name in ("ELBO", "IWAE_4", "log mean w", "jackknife", "CUBO_2"):
            assert table[name].value == pytest.approx(-6.0), name
            assert table[name].error == pytest.approx(0.0, abs=1e-12), name

    def test_a_weight_of_zero(self):
        log_w = toy_log_w(100)
        log_w[3] = -INF
        table = evidence(log_w, num_bootstrap=5)
        assert (table["ELBO"].value, table["ELBO"].error) == (-INF, INF)
        for name in ("log mean w", "CUBO_2", "thermodynamic upper"):
            assert math.isfinite(table[name].value), name
            assert math.isfinite(table[name].error), name


@pytest.mark.parametrize(
    ("log_w", "options", "message"),
    [
        (torch.zeros(1), {}, "fewer than two draws"),
        (torch.tensor([0.0, math.nan]), {}, "NaN"),
        (torch.full((3,), -INF), {}, "all weights of a cell are zero"),
        (torch.zeros(5), {"partitions": 0}, "partitions is 0"),
        (torch.zeros(5), {"num_bootstrap": 1}, "num_bootstrap is 1"),
        (torch.zeros(5), {"reference_log_w": torch.zeros(5, 2)}, r"cells of shape \(2,\)"),
        (torch.zeros(5), {"reference_log_w": torch.zeros(1)}, r"\(reference_log_w\)"),
    ],
)
def test_bad_input_is_refused(log_w, options, message):
    with pytest.raises(InvalidArgument, match=message):
        evidence(log_w, **options)
