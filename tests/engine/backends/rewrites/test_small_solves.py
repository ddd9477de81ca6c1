"""Small triangular systems are solved by substitution, with the library's solution."""

import pytest
import torch

from pyro_klmodes.engine.backends.rewrites.small_solves import MOST_ROWS
from tests.engine.backends.rewrites.rewritten import rewritten

SOLVE = "linalg_solve_triangular.default"
SHAPES = {
    "one column": ((4, 4), (4, 1)),
    "columns": ((4, 4), (4, 6)),
    "single": ((1, 1), (1, 3)),
    "batches": ((2, 3, 3), (2, 3, 5)),
    "shared matrix": ((3, 3), (7, 3, 2)),
    "as large as may be": ((MOST_ROWS, MOST_ROWS), (MOST_ROWS, 2)),
}


def system(matrix, right):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(matrix, dtype=torch.float64, generator=generator)
    a = a + 3 * torch.eye(matrix[-1], dtype=torch.float64)
    return a, torch.randn(right, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_a_small_system_is_substituted(name, upper, unitriangular):
    a, b = system(*SHAPES[name])

    def solve(a, b):
        return torch.linalg.solve_triangular(a, b, upper=upper, unitriangular=unitriangular)

    before, after = rewritten(solve, a, b)
    assert SOLVE in before
    assert SOLVE not in after


def test_a_density_and_its_gradient():
    def slope(loc, a, x):
        with torch.enable_grad():
            leaves = [loc.detach().requires_grad_(), a.detach().requires_grad_()]
            normal = torch.distributions.MultivariateNormal(
                leaves[0], scale_tril=leaves[1].tril(), validate_args=False
            )
            found = torch.autograd.grad(normal.log_prob(x).sum(), leaves)
        return found[0].sum() + found[1]

    a, x = system((3, 3), (5, 3))
    before, after = rewritten(slope, torch.zeros(3, dtype=torch.float64), a, x)
    assert before.count(SOLVE) == 2
    assert SOLVE not in after


@pytest.mark.parametrize("left", [True, False])
def test_others_are_left_to_the_library(left):
    n = MOST_ROWS + 1 if left else 3
    a, b = system((n, n), (n, n))
    _, after = rewritten(
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False, left=left), a, b
    )
    assert SOLVE in after
