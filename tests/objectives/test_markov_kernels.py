"""Both kernels leave the posterior invariant, exactly, by enumerating all that can happen.

The target has weights 1, 2 and 4 on a few states, so that every probability of a kernel is a
multiple of 1 / N for a known N: the mean over the N midpoints of a grid of uniform numbers is then
no approximation.
"""

import itertools
import math

import pytest
import torch

from pyro_klmodes.objectives import GivenWeights
from pyro_klmodes.objectives.markov_kernels import conditional_importance, independence

#: the guide's probabilities, and the weights p / q up to the evidence
Q = torch.tensor([0.4, 0.25, 0.2, 0.15], dtype=torch.float64)
W = torch.tensor([1.0, 4.0, 2.0, 1.0], dtype=torch.float64)
P = Q * W / (Q * W).sum()
VALUES = torch.tensor([0.3, -1.0, 2.5, 7.0], dtype=torch.float64)

#: all sums of three of the weights divide it
COMMON = 2520
#: all ratios of two weights are multiples of one over it
DYADIC = 4


def midpoints(n):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def by_importance(log_w):
    """Every outcome of a uniform number, one per cell."""
    uniform = midpoints(COMMON)
    cells = log_w.unsqueeze(1).expand(-1, COMMON)
    return conditional_importance(cells, uniform)


def by_acceptance(log_w):
    """Every outcome of one uniform number per step, one cell for each combination."""
    grids = torch.meshgrid(*[midpoints(DYADIC)] * (len(log_w) - 1), indexing="ij")
    uniform = torch.stack([g.flatten() for g in grids])
    cells = log_w.unsqueeze(1).expand(-1, uniform.shape[1])
    return independence(cells, uniform)


def enumerated(outcomes, S):
    """Transition matrix, and the expected estimate of the mean of VALUES, from every state."""
    matrix = torch.zeros(len(Q), len(Q), dtype=torch.float64)
    estimate = torch.zeros(len(Q), dtype=torch.float64)
    for state in range(len(Q)):
        for drawn in itertools.product(range(len(Q)), repeat=S - 1):
            particles = torch.tensor([state, *drawn])
            probability = Q[list(drawn)].prod()
            weights, index = outcomes(W[particles].log())
            matrix[state].scatter_add_(
                0, particles[index], torch.full(index.shape, probability / len(index)).double()
            )
            estimate[state] += probability * (weights.mean(1) * VALUES[particles]).sum()
    return matrix, estimate


KERNELS = pytest.mark.parametrize(
    "outcomes", [by_importance, by_acceptance], ids=["cis", "independence"]
)


@KERNELS
@pytest.mark.parametrize("S", [2, 3])
def test_the_kernel_is_reversible_and_leaves_the_target_invariant(outcomes, S):
    matrix, _ = enumerated(outcomes, S)
    torch.testing.assert_close(matrix.sum(1), torch.ones(4), rtol=0, atol=1e-12)
    torch.testing.assert_close(P @ matrix, P, rtol=0, atol=1e-12)
    flow = P.unsqueeze(1) * matrix
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-12)
    # It moves: another distribution than the target is changed.
    assert (Q @ matrix - Q).abs().max() > 0.01


@KERNELS
@pytest.mark.parametrize("S", [2, 3])
def test_from_a_draw_of_the_target_the_weights_estimate_it_without_bias(outcomes, S):
    _, estimate = enumerated(outcomes, S)
    exact = (P * VALUES).sum()
    torch.testing.assert_close((P * estimate).sum(), exact, rtol=0, atol=1e-12)
    # From a draw of the guide they do not: that is self-normalised importance sampling.
    assert abs((Q * estimate).sum() - exact) > 0.05


def test_more_particles_forget_faster():
    for outcomes in (by_importance, by_acceptance):
        gaps = []
        for S in (2, 3):
            matrix, _ = enumerated(outcomes, S)
            gaps.append(torch.linalg.eigvals(matrix).abs().sort().values[-2])
        assert gaps[1] < gaps[0] - 0.1


def test_the_two_kernels_differ():
    one, other = (enumerated(outcomes, 2)[0] for outcomes in (by_importance, by_acceptance))
    # Peskun: the acceptance of Metropolis is larger than that of Barker, which is CIS at S = 2.
    away = ~torch.eye(4, dtype=torch.bool)
    assert (other[away] > one[away]).all()


def test_multiplicities_by_hand():
    log_w = torch.tensor([[4.0], [1.0], [8.0], [2.0]]).log()
    uniform = torch.tensor([[0.3], [0.9], [0.2]])
    weights, index = independence(log_w, uniform)
    # rejected (1/4), accepted, accepted (1/4): at 0, 2 and 3
    torch.testing.assert_close(weights, torch.tensor([[1.0], [0.0], [1.0], [1.0]]) / 3)
    assert index.tolist() == [3]


@pytest.mark.parametrize("kernel", [conditional_importance, independence])
class TestEdges:
    def test_a_draw_without_weight_is_never_taken(self, kernel):
        log_w = torch.full((3, 5000), 0.0)
        log_w[1] = -math.inf
        weights, index = kernel(log_w)
        assert not (index == 1).any()
        assert (weights[1] == 0).all()

    def test_a_state_without_weight_is_left(self, kernel):
        log_w = torch.zeros(2, 5000)
        log_w[0] = -math.inf
        weights, index = kernel(log_w)
        assert (index == 1).all()
        assert (weights[1] == 1).all()

    def test_where_nothing_has_weight_the_chain_goes_on(self, kernel):
        weights, index = kernel(torch.full((2, 4000), -math.inf))
        torch.testing.assert_close(weights.sum(0), torch.ones(4000))
        assert (index == 1).any()

    def test_what_is_no_number_shows(self, kernel):
        log_w = torch.zeros(3, 2)
        log_w[2, 1] = math.nan
        weights, index = kernel(log_w)
        assert weights[:, 0].isfinite().all()
        assert weights[:, 1].isnan().all()
        assert 0 <= int(index.min()) <= int(index.max()) < 3

    def test_weights_are_constants_of_one_dtype(self, kernel):
        log_w = torch.zeros(4, 2, 3, dtype=torch.float32, requires_grad=True)
        weights, index = kernel(log_w)
        assert weights.dtype == torch.float32
        assert not weights.requires_grad
        assert weights.shape == (4, 2, 3)
        assert index.shape == (2, 3)

    def test_single_cells_have_no_axis(self, kernel):
        weights, index = kernel(torch.tensor([0.0, 1.0]))
        assert weights.shape == (2,)
        assert index.shape == ()


def test_given_weights_are_for_guide_and_model():
    weights = torch.tensor([[0.2, 1.0], [0.8, 0.0]])
    objective = GivenWeights(weights)
    log_w = torch.tensor([[1.0, 2.0], [3.0, -math.inf]])
    assert objective(log_w).tolist() == pytest.approx([2.6, 2.0])
    assert torch.equal(objective.wake_credit(log_w), weights)
    assert torch.equal(objective.for_model().credit(log_w), -weights)
    assert objective.shift == -objective.for_model().shift == 1
