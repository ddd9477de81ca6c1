import math

import pytest
import torch

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.weights import (
    effective_sample_size,
    khat_threshold,
    log_evidence,
    weighted_moments,
)

INF = math.inf


class TestEffectiveSampleSize:
    def test_closed_form(self):
        log_w = torch.tensor([[1.0, 1.0, 2.0], [3.0, 0.0, 2.0]]).log()
        torch.testing.assert_close(effective_sample_size(log_w), torch.tensor([1.6, 1.0, 2.0]))

    def test_nothing_but_zero_weights(self):
        log_w = torch.full((5, 2), -INF)
        log_w[:, 1] = 0.0
        log_w.requires_grad_()
        size = effective_sample_size(log_w)
        torch.testing.assert_close(size, torch.tensor([0.0, 5.0]))
        size.sum().backward()
        assert log_w.grad[:, 0].tolist() == [0.0] * 5
        assert log_w.grad.isfinite().all()

    def test_gradient(self):
        log_w = torch.randn(5, 2, requires_grad=True)
        assert torch.autograd.gradcheck(effective_sample_size, log_w)


class TestLogEvidence:
    def test_closed_form(self):
        estimate, error = log_evidence(torch.tensor([1.0, 2.0, 6.0]).log() - 900)
        torch.testing.assert_close(estimate, torch.tensor(math.log(3) - 900))
        # Sample variance of (1, 2, 6) is 7; sqrt(7/3)/3.
        torch.testing.assert_close(error, torch.tensor(math.sqrt(7 / 3) / 3))

    def test_error_is_the_spread_of_the_estimate(self):
        """Standard normal log-weights: log Z = 1/2, sd(w)/mean(w) = sqrt(e - 1).

        Over R = 2000 repetitions the standard deviation is known to 1/sqrt(2R) = 1.6 % of itself
        and the mean to 1/sqrt(R) = 2.2 % of it; 4 of each are allowed. The terms of the next order,
        1/K = 0.1 % of the error and its bias of half its square, are smaller.
        """
        num_draws = 1000
        estimate, error = log_evidence(torch.randn(num_draws, 2000))
        exact = math.sqrt((math.e - 1) / num_draws)
        assert abs(estimate.std() / exact - 1) < 0.064
        assert abs(estimate.mean() - 0.5) < 0.09 * exact + 0.5 * exact**2
        assert abs(error.mean() / exact - 1) < 0.064

    def test_one_particle_and_no_weight_have_no_error(self):
        estimate, error = log_evidence(torch.tensor([[2.0, -INF, math.nan]]))
        assert estimate[:2].tolist() == [2.0, -INF]
        assert error[:2].tolist() == [INF, INF]
        assert estimate[2].isnan()
        assert error[2].isnan()
        estimate, error = log_evidence(torch.tensor([-INF, -INF]))
        assert (estimate, error) == (-INF, INF)

    def test_constant_weights_are_exact(self):
        log_w = torch.full((4,), 3.0, requires_grad=True)
        estimate, error = log_evidence(log_w)
        assert error == 0
        assert not error.requires_grad
        estimate.backward()
        torch.testing.assert_close(log_w.grad, torch.full((4,), 0.25))


class TestKhatThreshold:
    def test_published_values(self):
        assert khat_threshold(10) == 0.0
        assert khat_threshold(100) == 0.5
        assert khat_threshold(1000) == pytest.approx(2 / 3, abs=1e-15)
        assert khat_threshold(2154) < 0.7
        assert khat_threshold(2155) == 0.7

    @pytest.mark.parametrize("num_draws", [-1, 0, 1])
    def test_needs_draws(self, num_draws):
        with pytest.raises(InvalidArgument, match=f"num_draws is {num_draws}"):
            khat_threshold(num_draws)


class TestWeightedMoments:
    def test_closed_form(self):
        values = torch.tensor([[[0.0, 1.0]], [[4.0, 1.0]]])
        mean, sd = weighted_moments(values, torch.tensor([1.0, 3.0]).log() + 800)
        torch.testing.assert_close(mean, torch.tensor([[3.0, 1.0]]))
        torch.testing.assert_close(sd, torch.tensor([[math.sqrt(3), 0.0]]))

    def test_enumerated_target(self):
        """Binomial(6, 0.3) from uniform draws that visit every count once."""
        counts = torch.arange(7)
        log_w = torch.distributions.Binomial(6, torch.tensor(0.3)).log_prob(counts)
        mean, sd = weighted_moments(counts, log_w)
        torch.testing.assert_close(mean, torch.tensor(1.8))
        torch.testing.assert_close(sd, torch.tensor(math.sqrt(1.26)))

    def test_no_weight_at_all_counts_equally(self):
        mean, sd = weighted_moments(torch.tensor([1.0, 3.0]), torch.full((2,), -INF))
        assert (mean, sd) == (2.0, 1.0)

    def test_nan(self):
        mean, sd = weighted_moments(torch.ones(2, 3), torch.tensor([0.0, math.nan]))
        assert mean.isnan().all()
        assert sd.isnan().all()

    def test_results_are_detached(self):
        mean, sd = weighted_moments(torch.randn(4, requires_grad=True), torch.zeros(4))
        assert not mean.requires_grad
        assert not sd.requires_grad

    @pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
    def test_needs_one_weight_per_draw(self, shape):
        with pytest.raises(InvalidArgument, match=r"need log_w of shape \(4,\)"):
            weighted_moments(torch.zeros(4, 2), torch.zeros(shape))
