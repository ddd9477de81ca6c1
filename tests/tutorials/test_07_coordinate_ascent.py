"""Tutorial 7: coordinate ascent and linear response against closed forms and quadrature."""

import math

import pytest
import torch

# Two normals


def check_pair(names):
    for r in names["correlations"]:
        assert names["rate"][r] == pytest.approx(r**2, rel=1e-5)
        assert names["sd_of_pair"][r] == pytest.approx(math.sqrt(1 - r**2), abs=1e-12)
        assert names["bound_gap"][r] == pytest.approx(-math.log(1 - r**2) / 2, abs=1e-6)
        # the first sweep: a from b at the edge, then b from a
        first = r * (names["EDGE"][1] - names["CENTRE"][1])
        assert float(names["errors"][r][0]) == pytest.approx(float(first), rel=1e-5)


def test_the_means_of_a_pair_converge_at_the_square_of_the_correlation(ran):
    check_pair(ran)


# Linear response


def test_linear_response_repairs_the_coefficients(ran):
    """The reference is by quadrature over the noise; at the start sds are wrong by up to 7.5."""
    assert ran["diabetes"].converged
    assert ran["diabetes"].conjugacy.conjugate
    assert 7 < float(ran["too_small"].max()) < 8
    assert 1.0 < float(ran["too_small"].min()) < 1.2
    assert ran["NAMES"][ran["worst"]] == "tc"
    assert ran["repair_error"] < 3e-3
    assert ran["mean_error"] < 1e-3
    assert abs(ran["tau_repaired"]) < 1e-5 < 5e-3 < -ran["tau_field"]


def test_mean_field_has_the_inverse_of_the_precision(ran):
    """At the mean of tau, where all columns have a sum of squares of 442."""
    tau = ran["diabetes"].site_params["tau"]
    precision = 0.5 + 442 * tau["concentration"] / tau["rate"]
    torch.testing.assert_close(ran["field_sd"], precision.rsqrt().expand(10), rtol=1e-6, atol=0)


# Natural gradients


def check_natural_gradients(names):
    assert names["identity_error"] < 1e-6
    assert (names["to_the_optimum"].abs() > 1).all()
    # conjugate: concentration 2 + 442 / 2
    assert float(names["optimum"][0]) == pytest.approx(223.0, abs=1e-9)
    assert names["best"] < names["log_evidence"]
    assert names["best"] > float(names["diabetes"].elbos[-1])
    assert names["block_error"] < 3e-3
    # all steps climb, the longer ones faster
    for missing in names["by_length"].values():
        above_rounding = [value for value in missing if value > 1e-10]
        assert above_rounding == sorted(above_rounding, reverse=True)
        assert len(above_rounding) >= 5
        assert missing[0] > 400
    assert names["by_length"][1.0][4] < 1e-7
    assert 0.2 < names["half_factor"] < 0.4
    assert names["adam_left"] > 1.0


def test_an_update_is_a_natural_gradient(ran):
    check_natural_gradients(ran)


def test_minibatches_climb(ran):
    values = list(ran["on_batches"].values())
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] / 5
    assert max(ran["on_batches"]) < 1  # less than a pass
    assert ran["in_sweeps"][3] < 1e-6 < 0.5 < ran["in_sweeps"][1]


# Where the means are wrong


def check_product(names):
    ends = set(names["modes_found"])
    assert len(ends) == 2
    assert sum(ends) == 0
    assert names["sd_of_both"] == pytest.approx(float(independent_product_sd()), abs=1e-3)
    field, repaired, exact = (names[n] for n in ("field_of_mode", "repaired_of_mode", "sd_of_mode"))
    assert field < 0.8 * exact
    assert 0.95 * exact < repaired < exact < names["sd_of_both"] / 2
    # fixed point of the updates: v = 1 / (1 + 4 (m^2 + v)), m = 4 x v m
    assert field**2 == pytest.approx(1 / 6, abs=1e-6)  # 4 * 1.5 * v = 1
    assert max(ends) ** 2 == pytest.approx(6 / 4 - 1 / 4 - 1 / 6, abs=2e-3)


def independent_product_sd():
    """In one dimension: b is integrated out, x given a is N(0, 1/4 + a^2)."""
    a = torch.linspace(-8.0, 8.0, 20_001)
    variance = 0.25 + a**2
    log_p = -(a**2) / 2 - variance.log() / 2 - 1.5**2 / (2 * variance)
    weight = log_p.softmax(0)
    return (weight * a**2).sum().sqrt()


def test_convergence_says_nothing_of_the_other_mode(ran):
    check_product(ran)


# Without conjugacy


def check_logistic(names):
    assert not names["report"].conjugate
    assert names["of_tumours"].converged
    assert names["effective"] > len(names["w"]) / 3
    # 4 standard errors of a weighted standard deviation, of about 1 / sqrt(2 effective)
    error = 4 / math.sqrt(2 * names["effective"])
    for field, repaired in zip(names["field_ratio"], names["repaired_ratio"], strict=True):
        assert abs(repaired - 1) < 0.01 + error
        assert field < 0.97
    assert max(names["field_ratio"][:2]) < 0.6
    assert 0.1 < float(names["skewness"].abs().max()) < 0.5


def test_logistic_regression_is_repaired_too(ran):
    check_logistic(ran)


# The setting that a reader sees


@pytest.mark.slow
def test_full_pair(full):
    check_pair(full)
    assert full["correlations"] == (0.5, 0.9, 0.99)


@pytest.mark.slow
def test_full_natural_gradients(full):
    check_natural_gradients(full)
    values = list(full["on_batches"].values())
    assert values == sorted(values, reverse=True)
    # a twentieth of a pass is better than a whole sweep, three sweeps better than two passes
    assert full["of_early"] < full["in_sweeps"][1] / 50
    assert full["in_sweeps"][3] < 1e-8 < 1e-5 < values[-1] < 2e-3


@pytest.mark.slow
def test_full_limits(full):
    check_product(full)
    check_logistic(full)
