"""Tail-adaptive credits depend on ranks and nothing else."""

import math

import pytest
import torch

from pyro_klmodes.objectives import TailAdaptive


@pytest.mark.parametrize("num_particles", [2, 3, 10, 100])
def test_sorted_credits_are_harmonic_whatever_the_weights(num_particles):
    """``gamma_(r) = 1 / (r H_K)``, after Wang, Liu and Liu (2018)."""
    rank = torch.arange(1.0, num_particles + 1)
    expected = 1 / (rank * (1 / rank).sum())
    for log_w in (
        torch.randn(num_particles),
        1e4 * torch.distributions.Cauchy(0.0, 1.0).sample((num_particles,)),
        1e-9 * torch.randn(num_particles),
    ):
        gamma = -TailAdaptive().credit(log_w)
        torch.testing.assert_close(
            gamma[log_w.argsort(descending=True)], expected, rtol=1e-13, atol=0
        )


@pytest.mark.parametrize("beta", [-1.0, -0.5, -0.1])
def test_the_exponent(beta):
    log_w = torch.randn(20)
    rank = torch.arange(1.0, 21.0)
    gamma = -TailAdaptive(beta).credit(log_w)
    expected = rank**beta / (rank**beta).sum()
    torch.testing.assert_close(gamma[log_w.argsort(descending=True)], expected, rtol=1e-12, atol=0)


def test_any_increasing_function_of_the_weights_gives_the_same_credits():
    log_w = torch.randn(15, 4)
    credit = TailAdaptive().credit(log_w)
    for warped in (log_w**3, 5 * log_w - 2, torch.atan(log_w), log_w.exp()):
        torch.testing.assert_close(TailAdaptive().credit(warped), credit, rtol=0, atol=0)


def test_the_value_weighs_the_log_weights_with_the_credits():
    log_w = torch.tensor([0.5, -2.0, 3.0])
    harmonic = 1 + 1 / 2 + 1 / 3
    expected = -(0.5 / 2 - 2.0 / 3 + 3.0) / harmonic
    assert TailAdaptive()(log_w).item() == pytest.approx(expected, abs=1e-14)


def test_the_curvature_of_ranks_is_zero():
    assert TailAdaptive().curvature(torch.randn(6, 2)).abs().max().item() == 0.0


def test_a_particle_of_weight_zero_has_the_last_rank():
    gamma = -TailAdaptive().credit(torch.tensor([0.0, -math.inf, 1.0]))
    torch.testing.assert_close(gamma, torch.tensor([3.0, 2.0, 6.0]) / 11)
