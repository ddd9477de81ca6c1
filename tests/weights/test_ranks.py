import math

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import descending_ranks, tail_adaptive_weights


class TestDescendingRanks:
    def test_by_hand(self):
        log_w = torch.tensor([[0.0, -math.inf], [9.0, 2.0], [-4.0, 3.0]])
        assert descending_ranks(log_w).tolist() == [[2, 3], [1, 2], [3, 1]]

    def test_ties_are_ranked_in_the_order_of_the_particles(self):
        log_w = torch.zeros(100, 3)
        log_w[60] = 1.0
        ranks = descending_ranks(log_w)
        expected = torch.cat([torch.arange(2, 62), torch.tensor([1]), torch.arange(62, 101)])
        assert (ranks == expected.unsqueeze(1)).all()

    def test_every_rank_once(self):
        ranks = descending_ranks(torch.randn(50, 4).round())
        assert (ranks.sort(dim=0).values == torch.arange(1, 51).unsqueeze(1)).all()


class TestTailAdaptiveWeights:
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("num_draws", [1, 2, 100])
    def test_sorted_weights_do_not_depend_on_the_size_of_the_weights(self, scale, num_draws):
        """Wang, Liu and Liu (2018) with beta = -1: 1/(rank H_K)."""
        gamma = tail_adaptive_weights(scale * torch.randn(num_draws, 3))
        rank = torch.arange(1, num_draws + 1).double()
        expected = 1 / (rank * (1 / rank).sum())
        torch.testing.assert_close(
            gamma.sort(dim=0, descending=True).values, expected.unsqueeze(1).expand(-1, 3)
        )

    @pytest.mark.parametrize("beta", [-3.0, -1.0, -0.5, 0.0, 2.0])
    def test_against_the_definition(self, beta):
        log_w = (2 * torch.randn(40, 5)).round()
        log_w[:3] = -math.inf
        # at_least[k, j]: is weight j at least weight k?
        at_least = log_w.unsqueeze(0) >= log_w.unsqueeze(1)
        fraction = at_least.double().mean(1)
        expected = fraction**beta / (fraction**beta).sum(0)
        torch.testing.assert_close(tail_adaptive_weights(log_w, beta), expected)

    def test_ties_are_equal(self):
        gamma = tail_adaptive_weights(torch.tensor([1.0, 5.0, 1.0, 5.0]))
        # Fbar is 1, 1/2, 1, 1/2, so that the weights are as 1, 2, 1, 2.
        torch.testing.assert_close(gamma, torch.tensor([1.0, 2.0, 1.0, 2.0]) / 6)

    @pytest.mark.parametrize("value", [0.0, -math.inf])
    def test_constant_weights_are_uniform(self, value):
        gamma = tail_adaptive_weights(torch.full((4, 2), value))
        torch.testing.assert_close(gamma, torch.full((4, 2), 0.25))

    def test_is_detached(self):
        assert not tail_adaptive_weights(torch.randn(5, requires_grad=True)).requires_grad

    @pytest.mark.parametrize("beta", [math.inf, -math.inf, math.nan])
    def test_needs_a_finite_exponent(self, beta):
        with pytest.raises(InvalidArgument, match="pass a finite exponent"):
            tail_adaptive_weights(torch.zeros(3), beta)
