"""Many kinds of operations and layouts on the compiled tiers, against the function itself."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.backends import build

CONSTANT = torch.linspace(-1.0, 1.0, 35, dtype=torch.float64).reshape(7, 5)


def many_operations(x, y, b, i):
    gram = x @ x.T + 7 * torch.eye(7, dtype=x.dtype)
    factor = torch.linalg.cholesky(gram)
    summed = torch.zeros(7, 5, dtype=x.dtype).index_add(0, i, y)
    return (
        *(factor, torch.linalg.solve_triangular(factor, x, upper=False), summed, x.cumsum(0)),
        *(x.sort(1).values, CONSTANT.to(x.dtype)[i] * 2, x[i], x.max(1).values, x.argmax(1)),
        *(torch.where(b, x, -torch.inf).logsumexp(1), (-(y.abs() / 0)).logsumexp(1), (x / 0)),
        *(torch.where(x > 0, x.log(), 0.0).sum(), (x / 0).isnan(), torch.lgamma(x.abs() + 1)),
        *(x.T, x, x[1:], b.sum(), i + 1, torch.einsum("ij,kj->ik", x, y), x.std(0)),
    )


def inputs(dtype):
    return [
        torch.randn(7, 5, dtype=dtype),
        torch.randn(4, 5, dtype=dtype),
        torch.randn(7, 5) > 0,
        torch.tensor([1, 2, 2, 6]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["inductor", "aot"])
@pytest.mark.parametrize(("dtype", "strided"), [(torch.float32, False), (torch.float64, True)])
def test_a_compiled_program_gives_what_the_function_gives(tmp_path, tier, dtype, strided):
    torch.manual_seed(0)
    given = inputs(dtype)
    if strided:
        given[0] = given[0].T.contiguous().T
        given[1] = given[1].repeat_interleave(2, 0)[::2]
    graph = make_fx(many_operations)(*given)
    with torch.no_grad():
        expected = [x.clone() for x in graph(*given)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for _ in range(2):  # the second one from the cache
        results = build(graph, given, tier, tmp_path)(given)
        for result, wanted in zip(results, expected, strict=True):
            assert result.dtype == wanted.dtype
            torch.testing.assert_close(
                result, wanted, rtol=tolerance, atol=tolerance, equal_nan=True
            )
