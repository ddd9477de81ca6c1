"""Cumulative sums and products of a few elements are written out."""

import pytest
import torch

from pyro_klmodes.engine.backends.rewrites.small_scans import MOST_ELEMENTS
from tests.engine.backends.rewrites.rewritten import rewritten

SCANS = {"cumsum.default", "cumprod.default"}
X = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("scan", [torch.cumsum, torch.cumprod])
def test_a_short_scan_is_written_out(scan, dim):
    before, after = rewritten(lambda x: scan(x, dim), X)
    assert SCANS & set(before)
    assert not SCANS & set(after)


def test_truth_values_are_counted():
    _, after = rewritten(lambda x: (x > 0).cumsum(1), X)
    assert not SCANS & set(after)


def test_the_gradient_of_a_product_with_a_zero_in_it():
    x = X.clone()
    x[1, 1, 1] = 0.0

    def slope(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(x.cumprod(1).square().sum(), x)[0]

    before, after = rewritten(slope, x)
    assert SCANS & set(before)
    assert not SCANS & set(after)


@pytest.mark.parametrize("shape", [(MOST_ELEMENTS + 1,), (0,), ()])
def test_others_are_left_to_the_library(shape):
    x = torch.ones(shape, dtype=torch.float64)
    _, after = rewritten(lambda x: x.cumsum(0), x)
    assert SCANS & set(after)
