"""What every objective owes, on enough particles for Pareto smoothing and tempering to act."""

import math

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives import (
    FDivergence,
    ForwardKL,
    Objective,
    Part,
    PowerMean,
    ReverseKL,
    f_functions,
)
from tests.registry import OBJECTIVES

K = 32

#: their value or credit is the same function on each side of a kink only
KINKED = {"vr_max", "vr_min", "f_total_variation"}
SMOOTH_WHOLE = [n for n in OBJECTIVES if n not in KINKED and OBJECTIVES[n]().part is Part.WHOLE]

every_objective = pytest.mark.parametrize("name", OBJECTIVES)


@pytest.fixture
def log_w():
    return torch.randn(K, 3, 2) * torch.tensor([[0.3], [1.0], [3.0]])


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@every_objective
def test_particles_are_exchangeable(name, log_w):
    objective = OBJECTIVES[name]()
    order = torch.randperm(K)
    close(objective(log_w[order]), objective(log_w))
    close(objective.credit(log_w[order]), objective.credit(log_w)[order])


@every_objective
def test_cells_are_independent(name, log_w):
    objective = OBJECTIVES[name]()
    value, credit = objective(log_w), objective.credit(log_w)
    for i in range(3):
        for j in range(2):
            close(value[i, j], objective(log_w[:, i, j]))
            close(credit[:, i, j], objective.credit(log_w[:, i, j]))


@every_objective
def test_scaling_the_density_moves_the_value_by_shift_and_no_credit(name, log_w):
    objective = OBJECTIVES[name]()
    close(objective(log_w + 400.0), objective(log_w) + 400.0 * objective.shift, 1e-10)
    close(objective.credit(log_w + 400.0), objective.credit(log_w), 1e-10)


@every_objective
def test_credits_sum_to_the_shift(name, log_w):
    objective = OBJECTIVES[name]()
    close(objective.credit(log_w).sum(0), torch.full((3, 2), float(objective.shift)))


@every_objective
def test_equal_weights_give_the_shift_and_even_credits(name):
    objective = OBJECTIVES[name]()
    log_w = torch.full((K, 2), -1.7)
    close(objective(log_w), torch.full((2,), -1.7 * objective.shift))
    close(objective.credit(log_w), torch.full((K, 2), objective.shift / K))


@every_objective
def test_derivatives_carry_no_graph(name, log_w):
    objective = OBJECTIVES[name]()
    log_w.requires_grad_()
    assert objective(log_w).requires_grad
    assert not objective.credit(log_w).requires_grad
    if objective.smooth and name not in KINKED | {"forward_kl_psis", "forward_kl_tempered"}:
        assert not objective.curvature(log_w).requires_grad


@every_objective
def test_the_credit_is_the_gradient_of_the_value(name, log_w):
    objective = OBJECTIVES[name]()
    close(objective.credit(log_w), jacobian(lambda x: objective(x).sum(), log_w))


@pytest.mark.parametrize("name", SMOOTH_WHOLE)
def test_the_curvature_is_the_diagonal_of_the_hessian(name, log_w):
    objective = OBJECTIVES[name]()
    for i in range(3):
        cell = log_w[:, i, 0]
        close(objective.curvature(cell), hessian(objective, cell).diagonal(), 1e-10)
    close(objective.curvature(log_w)[:, 2, 0], objective.curvature(log_w[:, 2, 0]))


@pytest.mark.parametrize("name", SMOOTH_WHOLE)
def test_closed_forms_equal_differentiation(name, log_w):
    objective = OBJECTIVES[name]()
    close(objective.credit(log_w), Objective.credit(objective, log_w))
    close(objective.curvature(log_w), Objective.curvature(objective, log_w), 1e-10)


def test_the_curvature_of_forward_kl_is_that_of_its_weights(log_w):
    cell = log_w[:, 1, 0]
    expected = jacobian(lambda x: torch.softmax(x, 0), cell).diagonal()
    close(ForwardKL().curvature(cell), expected)


@pytest.mark.parametrize("name", [*sorted(KINKED), "forward_kl_psis", "forward_kl_tempered"])
def test_what_has_no_curvature_refuses_to_give_one(name, log_w):
    with pytest.raises(IncompatibleEstimator, match="path-only gradient"):
        OBJECTIVES[name]().curvature(log_w)


@every_objective
def test_particles_of_weight_zero_give_finite_credits(name, log_w):
    objective = OBJECTIVES[name]()
    log_w[::2, 0, 0] = -math.inf
    credit = objective.credit(log_w)
    assert credit.isfinite().all()
    gradient = jacobian(lambda x: objective(x).sum(), log_w)
    assert gradient.isfinite().all()
    # The other cells do not notice.
    close(objective(log_w)[1:], objective(log_w[:, 1:]))
    close(credit[:, 1:], objective.credit(log_w[:, 1:]))


@every_objective
def test_a_cell_without_any_weight_gives_finite_credits(name, log_w):
    objective = OBJECTIVES[name]()
    log_w[:, 0, 0] = -math.inf
    credit = objective.credit(log_w)
    close(credit, jacobian(lambda x: objective(x).sum(), log_w))
    assert credit.isfinite().all()
    close(credit[:, 1:], objective.credit(log_w[:, 1:]))


@every_objective
def test_single_precision(name, log_w):
    objective = OBJECTIVES[name]()
    single = log_w.float()
    # The same rounded numbers in double precision: what is left is the arithmetic.
    double = single.double()
    for function in (objective, objective.credit):
        assert function(single).dtype is torch.float32
        torch.testing.assert_close(
            function(single).double(), function(double), rtol=1e-4, atol=1e-6
        )


#: a guide and a density on three points; the log-evidence is not zero
Q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
P = 0.37 * torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)


def expected_value(objective, num_particles):
    """``E L`` over all sets of particles, by enumeration."""
    sets = torch.cartesian_prod(*[torch.arange(3)] * num_particles).reshape(-1, num_particles).T
    return float((Q[sets].prod(0) * objective((P / Q).log()[sets])).sum())


LOG_EVIDENCE = math.log(0.37)


@every_objective
def test_what_calls_itself_a_lower_bound_is_one_at_every_number_of_particles(name):
    objective = OBJECTIVES[name]()
    bounds = [-expected_value(objective, k) for k in range(objective.min_particles, 7)]
    if objective.lower_bound:
        assert max(bounds) <= LOG_EVIDENCE
    elif objective.shift == -1 and objective.part is Part.WHOLE and name != "thermodynamic_left":
        # The importance-weighted orders below zero overtake the evidence as particles are added.
        assert bounds[0] < LOG_EVIDENCE < bounds[-1]


@every_objective
def test_fewer_particles_than_the_least_give_no_descent(name):
    objective = OBJECTIVES[name]()
    if objective.min_particles == 1:
        # One particle: the negated log-weight, which is the ELBO.
        close(objective(torch.tensor([[1.3]])), torch.tensor([-1.3]))
        return
    credit = objective.credit(torch.tensor([[1.3]]))
    # No gradient at all, a score with mean zero (wake), or the ELBO pushed the wrong way.
    if objective.part is Part.WAKE:
        close(credit, torch.ones(1, 1))
    elif objective.part is Part.PATH:
        close(credit, -torch.ones(1, 1))
    else:
        assert float(credit) in (0.0, 1.0)


def test_the_model_follows_a_bound_that_it_can_raise():
    for name, make in OBJECTIVES.items():
        objective = make()
        served = objective.for_model()
        assert served.shift == -1, name
        own = objective.part is Part.WHOLE and objective.shift == -1
        assert (served == objective) if own else (served == PowerMean(0.0)), name


def test_only_the_evidence_lower_bound_is_linear(log_w):
    other = torch.randn_like(log_w)
    for name, make in OBJECTIVES.items():
        objective = make()
        mixed = objective(0.3 * log_w + 0.7 * other)
        average = 0.3 * objective(log_w) + 0.7 * objective(other)
        assert objective.linear == torch.allclose(mixed, average, atol=1e-10), name


def test_reverse_kl_is_the_power_mean_of_order_zero(log_w):
    close(ReverseKL()(log_w), PowerMean(1.0)(log_w))
    close(ReverseKL().credit(log_w), PowerMean(1.0).credit(log_w))
    close(ReverseKL().curvature(log_w), PowerMean(1.0).curvature(log_w))


def test_the_self_normalised_f_of_reverse_kl_is_the_gap_between_two_bounds(log_w):
    gap = ReverseKL()(log_w) - PowerMean(0.0)(log_w)
    close(FDivergence(f_functions.reverse_kl)(log_w), gap)
