"""What every function of log-weights owes: cells are independent, particles exchangeable."""

import math

import pytest
import torch

from pyro_klmodes import weights

# name: (function of log_w, what a constant added to log_w adds to the result)
CELL_FUNCTIONS = {
    "effective_sample_size": (weights.effective_sample_size, 0),
    "evidence": (lambda log_w: weights.log_evidence(log_w)[0], 1),
    "evidence error": (lambda log_w: weights.log_evidence(log_w)[1], 0),
    "log_mean_exp": (weights.log_mean_exp, 1),
    "pareto_khat": (weights.pareto_khat, 0),
    "power mean -2": (lambda log_w: weights.power_mean(log_w, -2), 1),
    "power mean -1e-6": (lambda log_w: weights.power_mean(log_w, -1e-6), 1),
    "power mean 0": (lambda log_w: weights.power_mean(log_w, 0), 1),
    "power mean 1e-6": (lambda log_w: weights.power_mean(log_w, 1e-6), 1),
    "power mean 0.5": (lambda log_w: weights.power_mean(log_w, 0.5), 1),
    "power mean inf": (lambda log_w: weights.power_mean(log_w, math.inf), 1),
    "tempering_exponent": (weights.tempering_exponent, 0),
}
PARTICLE_FUNCTIONS = {
    "descending_ranks": (weights.descending_ranks, 0),
    "log_normalise": (weights.log_normalise, 0),
    "pareto_smooth": (lambda log_w: weights.pareto_smooth(log_w)[0], 1),
    "self_normalise": (weights.self_normalise, 0),
    "tail_adaptive_weights": (weights.tail_adaptive_weights, 0),
}
ALL = CELL_FUNCTIONS | PARTICLE_FUNCTIONS


@pytest.fixture
def log_w():
    return torch.randn(60, 3, 2) * torch.tensor([[0.3], [1.5], [4.0]])


@pytest.mark.parametrize("name", ALL)
def test_a_batch_equals_a_loop_over_its_cells(name, log_w):
    function, _ = ALL[name]
    result = function(log_w)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(
                result[..., i, j], function(log_w[:, i, j]), rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("name", ALL)
def test_adding_a_constant_shifts_or_changes_nothing(name, log_w):
    function, shift = ALL[name]
    moved = function(log_w + 700.0)
    torch.testing.assert_close(moved, function(log_w) + 700 * shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CELL_FUNCTIONS)
def test_results_per_cell_ignore_the_order_of_particles(name, log_w):
    function, _ = ALL[name]
    shuffled = function(log_w[torch.randperm(60)])
    torch.testing.assert_close(shuffled, function(log_w), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PARTICLE_FUNCTIONS)
def test_results_per_particle_follow_their_particle(name, log_w):
    function, _ = ALL[name]
    order = torch.randperm(60)
    torch.testing.assert_close(function(log_w[order]), function(log_w)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_float32_in_float32_out(name, log_w):
    function, _ = ALL[name]
    single = function(log_w.float())
    if name == "descending_ranks":
        assert single.dtype == torch.int64
        return
    assert single.dtype == torch.float32
    # The same rounded numbers in double precision: what is left is the arithmetic.
    torch.testing.assert_close(
        single.double(), function(log_w.float().double()), rtol=2e-6, atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in ALL if name != "descending_ranks"])
@pytest.mark.parametrize("num_particles", [15, 60])
def test_nan_stays_in_its_cell(name, num_particles, log_w):
    function, _ = ALL[name]
    log_w = log_w[:num_particles]
    whole = function(log_w)
    log_w[4, 1, 1] = math.nan
    log_w[7, 1, 1] = -math.inf
    result = function(log_w)
    assert result[..., 1, 1].isnan().all()
    result[..., 1, 1] = whole[..., 1, 1]
    torch.testing.assert_close(result, whole, rtol=0, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_no_cells_give_no_results(name):
    function, _ = ALL[name]
    per_particle = name in PARTICLE_FUNCTIONS
    assert function(torch.zeros(60, 0, 2)).shape == ((60, 0, 2) if per_particle else (0, 2))


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_left_alone(name, log_w):
    function, _ = ALL[name]
    before = log_w.clone()
    function(log_w)
    torch.testing.assert_close(log_w, before, rtol=0, atol=0)


def test_public_names_are_sorted_and_present():
    assert weights.__all__ == sorted(weights.__all__)
    assert all(callable(getattr(weights, name)) for name in weights.__all__)
