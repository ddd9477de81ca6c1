"""Products of small matrices are written out, with the same values up to the order of sums."""

import pytest
import torch

from pyro_klmodes.engine.backends.rewrites.small_products import MOST_PRODUCTS
from tests.engine.backends.rewrites.rewritten import rewritten

PRODUCTS = {
    "matrices": (lambda x, y: x @ y, (4, 3), (3, 5)),
    "column": (lambda x, y: x @ y, (4, 3), (3, 1)),
    "row": (lambda x, y: x @ y, (1, 3), (3, 4)),
    "outer": (lambda x, y: x @ y, (4, 1), (1, 3)),
    "transposed": (lambda x, y: x.T @ y.T, (3, 4), (5, 3)),
    "batches": (lambda x, y: x @ y, (2, 4, 3), (2, 3, 5)),
    "shared matrix": (lambda x, y: x @ y, (6, 4, 3), (3, 2)),
    "matrix and vector": (lambda x, y: x @ y, (4, 3), (3,)),
    "square": (lambda x, y: x @ x + y, (3, 3), (3, 3)),
    "nothing to sum": (lambda x, y: x @ y, (4, 0), (0, 5)),
}
LIBRARY = {"mm.default", "bmm.default", "mv.default"}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_small_product_is_a_sum_of_products(name):
    function, left, right = PRODUCTS[name]
    torch.manual_seed(0)
    x, y = torch.randn(left, dtype=torch.float64), torch.randn(right, dtype=torch.float64)
    before, after = rewritten(function, x, y)
    assert LIBRARY & set(before)
    assert not LIBRARY & set(after)


def test_a_large_product_is_left_to_the_library():
    n = int(MOST_PRODUCTS**0.5) + 1
    x, y = torch.randn(n, n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    _, after = rewritten(lambda x, y: (x @ y).sum() + (x[:2, :2] @ x[:2, :2]).sum(), x, y)
    assert LIBRARY & set(after) == {"mv.default"}
