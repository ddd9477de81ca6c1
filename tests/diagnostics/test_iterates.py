"""R-hat, effective size and error of iterates: equal to ArviZ, and right for known chains."""

import math

import arviz
import pytest
import torch
from scipy import stats

from pyro_klmodes.diagnostics.iterates import iterate_average, iterate_ess, iterate_rhat
from pyro_klmodes.errors import InvalidArgument


def autoregressive(correlation, shape):
    """Stationary chains of unit variance along the last but one dimension."""
    x = torch.randn(shape)
    for t in range(1, shape[-2]):
        x[..., t, :] = correlation * x[..., t - 1, :] + math.sqrt(1 - correlation**2) * x[..., t, :]
    return x


CHAINS = {
    "independent": lambda: torch.randn(4, 200, 3),
    "one run": lambda: torch.randn(1, 301, 3),
    "correlated": lambda: autoregressive(0.9, (2, 500, 3)),
    "alternating": lambda: autoregressive(-0.6, (2, 200, 3)),
    "drifting": lambda: torch.randn(2, 200, 3).cumsum(1),
    "of two scales": lambda: torch.randn(2, 100, 3) * torch.tensor([1.0, 4.0])[:, None, None],
    "with ties": lambda: torch.randint(0, 5, (2, 101, 3)).double(),
    "heavy tails": lambda: torch.randn(2, 100, 3) / torch.randn(2, 100, 3),
    "short": lambda: torch.randn(2, 8, 3),
    "shortest": lambda: torch.randn(1, 4, 3),
}


@pytest.mark.parametrize("kind", sorted(CHAINS))
def test_equal_to_arviz(kind):
    chains = CHAINS[kind]()
    rhat, ess, average = iterate_rhat(chains), iterate_ess(chains), iterate_average(chains)
    for p in range(3):
        column = chains[:, :, p].numpy()
        if len(column) > 1:  # ArviZ refuses a single run
            assert rhat[p].item() == pytest.approx(float(arviz.rhat(column)), rel=1e-9)
        assert ess[p].item() == pytest.approx(float(arviz.ess(column)), rel=1e-9)
        assert average.mcse[p].item() == pytest.approx(float(arviz.mcse(column)), rel=1e-9)
        assert average.ess[p].item() == pytest.approx(
            float(arviz.ess(column, method="mean")), rel=1e-9
        )


def test_one_run_may_go_without_its_dimension():
    x = torch.randn(50, 2)
    assert torch.equal(iterate_rhat(x), iterate_rhat(x[None]))


def test_a_single_run_that_drifts_is_seen():
    """A step of three standard deviations in the middle: W = 1, B/n = 4.5, up to the ranks."""
    x = torch.randn(2000, 5)
    assert iterate_rhat(x).max() < 1.01
    x[1000:] += 3.0
    assert iterate_rhat(x).min() > 1.7


def test_effective_size_of_an_autoregressive_chain():
    """T (1 - r) / (1 + r) for correlation r: within 15 % for 20 chains of 4000."""
    ess = iterate_ess(autoregressive(0.8, (4000, 20)))
    assert ess.mean().item() == pytest.approx(4000 / 9, rel=0.15)


def test_standard_errors_are_right():
    """Means of 400 correlated chains, over their errors, are standard normal."""
    found = iterate_average(autoregressive(0.7, (600, 400)))
    assert stats.kstest((found.mean / found.mcse).numpy(), "norm").pvalue > 0.01


def test_a_parameter_that_does_not_move_is_stationary():
    x = torch.cat([torch.randn(40, 1), torch.full((40, 1), 2.5)], 1)
    assert iterate_rhat(x)[1] == 1.0
    assert iterate_ess(x)[1] == 40
    assert iterate_average(x).mcse[1] == 0.0


@pytest.mark.parametrize(
    ("iterates", "message"),
    [
        (torch.zeros(5), "shape"),
        (torch.zeros(5, 0), "shape"),
        (torch.zeros(3, 2), "3 are too few"),
        (torch.full((5, 2), math.inf), "diverged"),
    ],
)
def test_bad_input_is_named(iterates, message):
    for function in (iterate_rhat, iterate_ess, iterate_average):
        with pytest.raises(InvalidArgument, match=message):
            function(iterates)
