"""The evidence of many cells is neither biased nor, by its bias, called too small."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_klmodes.diagnosis.cell_evidence import CellEvidence
from pyro_klmodes.diagnosis.finer_evidence import decided
from pyro_klmodes.diagnosis.verdict import TrustedEvidence, verdict
from pyro_klmodes.diagnosis.weight_summary import summarise_weights
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.tracing.full_data import FullData
from pyro_klmodes.tracing.runs import Pair


def log_weights(scale, draws, cells, seed=0):
    """Of a normal guide with that standard deviation, for a standard normal."""
    z = torch.randn(draws, cells, generator=torch.Generator().manual_seed(seed)).double()
    return math.log(scale) + 0.5 * z.square() * (1 - scale**2)


def relative_variance(scale):
    """Of these weights, by the integral of p^2 / q."""
    return scale**2 / math.sqrt(2 * scale**2 - 1) - 1


def test_blocks_are_as_good_as_all_draws_at_once():
    log_w = 5000.0 + log_weights(2.0, 900, 7)
    log_w[:300, 3] = -math.inf  # a block without any weight

    found = CellEvidence.of(log_w[:200])
    for block in log_w[200:].split([100, 600]):
        found = found.and_more(CellEvidence.of(block))
    at_once = CellEvidence.of(log_w)

    torch.testing.assert_close(found.log_mean, at_once.log_mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.squares, at_once.squares, rtol=1e-9, atol=0)
    assert found.value == pytest.approx(at_once.value, abs=1e-9)
    assert found.error == pytest.approx(at_once.error, rel=1e-9)


def test_constant_weights_have_no_error_in_several_blocks():
    block = CellEvidence.of(torch.full((50, 3), -4e4))

    both = block.and_more(block)

    assert both.value == pytest.approx(-12e4, abs=1e-9)
    assert both.error < 1e-10


def test_a_cell_without_any_weight_has_no_evidence():
    block = CellEvidence.of(torch.tensor([[0.0, -math.inf], [0.0, -math.inf]]))

    both = block.and_more(block)

    assert (both.value, both.error) == (-math.inf, math.inf)


def test_eighty_thousand_cells_are_not_short_by_the_bias_of_their_logarithms():
    """The sum of logarithms of means is short by 80000 * 0.203 / 100 = 162, its error is 18."""
    log_w = log_weights(1.5, 50, 80_000)
    bias = 80_000 * relative_variance(1.5) / (2 * 50)

    found = CellEvidence.of(log_w)

    assert found.error == pytest.approx(math.sqrt(2 * bias), rel=0.02)
    assert found.log_mean.sum() < -6 * found.error
    assert abs(found.value) < 3 * found.error  # and it is not corrected twice
    assert verdict(summarise_weights(log_w), TrustedEvidence(0.0)).word != "misses mass"


def looked_again(draws, cells, scale, seed, *, left_out=0.0):
    """The word before and after more draws; the evidence, zero, is known."""

    def model():
        with pyro.plate("data", cells):
            shares = torch.tensor([1 - left_out, left_out])
            modes = dist.Normal(torch.tensor([0.0, 50.0]), 1.0)
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(shares), modes))

    def guide():
        with pyro.plate("data", cells):
            pyro.sample("z", dist.Normal(0.0, scale))

    data, exact = FullData.of(Pair(model, guide)), TrustedEvidence(0.0)
    with seeded(seed):
        first = data.draws(draws)
    before = summarise_weights(first.log_w)
    after, notes = decided(data, first, before, exact, seed)
    return verdict(before, exact).word, verdict(after, exact).word, bool(notes)


@pytest.mark.parametrize(
    ("draws", "cells", "scale"),
    [
        (100, 300, 2.0),  # short by 0.77, which is all bias, if logarithms of blocks were averaged
        pytest.param(100, 125, 4.0, marks=pytest.mark.slow),  # short by 1.17
        (100, 1, 8.0),  # short by 0.02, and 640 blocks make the error 0.009
        (100, 1, 0.8),  # weights without third moment: the first error is too small
    ],
)
def test_exact_evidence_is_not_missed_whatever_the_number_of_cells(draws, cells, scale):
    found = [looked_again(draws, cells, scale, 1000 * seed) for seed in range(10)]

    assert "misses mass" not in {after for _, after, _ in found}
    assert any(again for _, _, again in found)


def test_a_twentieth_of_the_mass_of_every_cell_is_missed():
    """100 log(0.95) = -5.1, with an error of 0.72 at first."""
    words = [looked_again(100, 100, 2.0, 1000 * seed, left_out=0.05)[1] for seed in range(8)]

    assert set(words) == {"misses mass"}


def test_a_twentieth_of_the_mass_of_one_cell_is_missed():
    """log(0.95) = -0.051 is three and a half standard errors of 2500 draws."""
    found = [looked_again(2500, 1, 2.0, 1000 * seed, left_out=0.05) for seed in range(8)]

    assert {after for _, after, _ in found} == {"misses mass"}
    assert any(again for _, _, again in found)
