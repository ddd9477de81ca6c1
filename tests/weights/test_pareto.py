import math

import arviz
import pytest
import torch

from pyro_klmodes.weights import log_normalise, pareto_khat, pareto_smooth

INF = math.inf


def arviz_psis(log_w):
    """Normalised smoothed weights and shapes of the reference implementation, particles first."""
    smoothed, khat = arviz.psislw(log_w.movedim(0, -1).numpy())
    return torch.as_tensor(smoothed).movedim(-1, 0), torch.as_tensor(khat)


def assert_agrees_with_arviz(log_w):
    smoothed, khat = pareto_smooth(log_w)
    arviz_smoothed, arviz_khat = arviz_psis(log_w)
    torch.testing.assert_close(khat, arviz_khat, rtol=0, atol=1e-9)
    torch.testing.assert_close(pareto_khat(log_w), khat, rtol=0, atol=0)
    # Ties in the tail get their quantiles in no particular order.
    torch.testing.assert_close(
        log_normalise(smoothed).sort(dim=0).values,
        arviz_smoothed.sort(dim=0).values,
        rtol=0,
        atol=1e-9,
    )


class TestAgainstArviz:
    @pytest.mark.parametrize("num_draws", [2, 20, 21, 25, 26, 100, 224, 225, 226, 1000, 4001])
    def test_normal_log_weights(self, num_draws):
        scale = torch.tensor([1e-8, 0.01, 0.3, 1.0, 2.0, 5.0, 20.0, 100.0])
        assert_agrees_with_arviz(scale * torch.randn(num_draws, 8) - 30.0)

    def test_two_local_dimensions_and_particle_by_particle(self):
        log_w = 2 * torch.randn(300, 4, 3)
        assert_agrees_with_arviz(log_w)
        smoothed, _ = pareto_smooth(log_w)
        arviz_smoothed, _ = arviz_psis(log_w)
        torch.testing.assert_close(log_normalise(smoothed), arviz_smoothed, rtol=0, atol=1e-9)

    def test_light_tails(self):
        assert_agrees_with_arviz(torch.rand(500, 5).log())

    def test_ties_shorten_the_tail(self):
        log_w = (4 * torch.randn(300, 10)).round()
        assert_agrees_with_arviz(log_w)

    @pytest.mark.parametrize("num_finite", [1, 4, 5, 6, 30, 150])
    def test_zero_weights(self, num_finite):
        log_w = torch.full((200, 6), -INF)
        log_w[:num_finite] = 2 * torch.randn(num_finite, 6)
        assert_agrees_with_arviz(log_w[torch.randperm(200)])

    def test_tails_of_different_length_in_one_batch(self):
        log_w = 3 * torch.randn(400, 12)
        for cell in range(12):
            log_w[: 33 * cell, cell] = -INF
        assert_agrees_with_arviz(log_w)

    def test_many_cells_of_different_scale(self):
        """More than are fitted at a time. ArviZ drops the smallest grid weights at 2e-15, where
        rounding decides; that moves a shape by 1e-8 or so."""
        scale = torch.logspace(-2, 2, 1100)
        log_w = scale[torch.randperm(1100)] * torch.randn(300, 1100)
        khat = pareto_khat(log_w)
        torch.testing.assert_close(khat, arviz_psis(log_w)[1], rtol=0, atol=1e-6)
        # and a cell's shape depends on its neighbours by rounding only
        alone = torch.stack([pareto_khat(log_w[:, cell]) for cell in (0, 511, 512, 1099)])
        torch.testing.assert_close(khat[[0, 511, 512, 1099]], alone, rtol=1e-12, atol=0)

    def test_constant_weights_have_no_tail(self):
        log_w = torch.full((100, 2), 3.0)
        assert_agrees_with_arviz(log_w)
        assert pareto_khat(log_w).tolist() == [INF, INF]


class TestShape:
    @pytest.mark.parametrize("shape", [0.2, 0.9])
    def test_quantiles_of_a_pareto_tail_give_its_shape(self, shape):
        """Up to the prior, which moves the shape of a tail of n draws to (n k + 5)/(n + 10)."""

        def error(num_draws):
            quantile = (torch.arange(num_draws) + 0.5) / num_draws
            size = math.ceil(min(num_draws / 5, 3 * num_draws**0.5))
            expected = (size * shape + 5) / (size + 10)
            return abs(pareto_khat(-shape * torch.log1p(-quantile)).item() - expected)

        assert error(100) > 0.015
        assert error(100_000) < 0.003

    def test_mean_over_random_pareto_weights(self):
        """2000 cells of 4000 draws with k = 1/2, which the prior leaves alone.

        One khat has a standard deviation of 0.10, their mean a standard error of 0.0022; four of
        them and the bias of the fit, 0.002 or so, are allowed.
        """
        exponential = -torch.rand(4000, 2000).log()
        khat = pareto_khat(0.5 * exponential)
        assert 0.09 < khat.std() < 0.11
        assert abs(khat.mean() - 0.5) < 4 * 0.0022 + 0.002


class TestSmoothing:
    def test_only_the_tail_changes_and_never_beyond_the_largest_weight(self):
        log_w = 3 * torch.randn(400, 7)
        smoothed, khat = pareto_smooth(log_w)
        assert khat.isfinite().all()
        tail = log_w >= log_w.topk(60, dim=0).values[-1]
        assert (smoothed[~tail] == log_w[~tail]).all()
        assert (smoothed[tail] != log_w[tail]).sum() > 400
        assert (smoothed <= log_w.amax(0)).all()

    def test_keeps_the_order_of_the_weights(self):
        log_w = 3 * torch.randn(400, 7)
        in_order = pareto_smooth(log_w)[0].gather(0, log_w.argsort(dim=0))
        assert (in_order.diff(dim=0) >= 0).all()

    def test_steadies_the_estimate_of_the_mean_weight(self):
        """The relative spread of the mean weight over 1000 cells, k = 0.7: without a variance."""
        log_w = -0.7 * torch.rand(500, 1000).log()
        raw = log_w.exp().mean(0)
        smooth = pareto_smooth(log_w)[0].exp().mean(0)
        assert smooth.std() / smooth.mean() < raw.std() / raw.mean()

    def test_results_are_detached(self):
        log_w = torch.randn(100, 2, requires_grad=True)
        smoothed, khat = pareto_smooth(log_w)
        assert not smoothed.requires_grad
        assert not khat.requires_grad
        assert not pareto_khat(log_w).requires_grad


class TestWithoutTail:
    @pytest.mark.parametrize("num_draws", [1, 2, 20, 100])
    def test_nothing_but_zero_weights(self, num_draws):
        log_w = torch.full((num_draws, 2), -INF)
        smoothed, khat = pareto_smooth(log_w)
        assert khat.tolist() == [INF, INF]
        assert (smoothed == -INF).all()
        assert pareto_khat(log_w).tolist() == [INF, INF]

    @pytest.mark.parametrize("num_draws", [1, 20])
    def test_few_draws_are_left_as_they_are(self, num_draws):
        log_w = torch.randn(num_draws)
        smoothed, khat = pareto_smooth(log_w)
        assert khat == INF
        assert smoothed.tolist() == log_w.tolist()

    def test_weights_equal_but_for_rounding(self):
        log_w = 3.0 + 4e-16 * torch.randint(0, 3, (1000,))
        assert log_w.unique().numel() > 1
        smoothed, khat = pareto_smooth(log_w)
        assert not khat.isnan()
        torch.testing.assert_close(smoothed, log_w, rtol=0, atol=1e-14)

    def test_a_tail_that_overflows_the_fit_is_never_called_good(self):
        log_w = 1000 * torch.randn(1000, 200)
        smoothed, khat = pareto_smooth(log_w)
        assert (khat > 10).all()
        assert (khat == INF).any()
        assert khat.isfinite().any()
        assert not smoothed.isnan().any()
        assert (smoothed <= log_w.amax(0)).all()

    @pytest.mark.parametrize("num_draws", [15, 100])
    def test_infinite_weights_are_not_a_number(self, num_draws):
        log_w = torch.randn(num_draws, 2)
        log_w[3, 0] = INF
        smoothed, khat = pareto_smooth(log_w)
        assert khat.isnan().tolist() == [True, False]
        assert pareto_khat(log_w).isnan().tolist() == [True, False]
        assert smoothed[:, 0].isnan().all()
        assert not smoothed[:, 1].isnan().any()
