import itertools

import pytest

from pyro_klmodes.engine.backends.costs import compile_seconds, step_seconds

TIERS = ["graph", "inductor", "aot"]


@pytest.mark.parametrize("operations", [20, 100, 10_000])
def test_what_takes_longer_to_compile_takes_less_to_run(operations):
    for first, second in itertools.pairwise(TIERS):
        assert compile_seconds(first, operations) < compile_seconds(second, operations)
        assert step_seconds(first, operations) > step_seconds(second, operations)


@pytest.mark.parametrize("tier", TIERS)
def test_more_operations_take_longer(tier):
    assert 0 < compile_seconds(tier, 10) < compile_seconds(tier, 1000)
    assert 0 < step_seconds(tier, 10) < step_seconds(tier, 1000)
