import pytest
import torch

from pyro_klmodes.engine.backends import same_layout


@pytest.mark.parametrize(
    "other",
    [
        [torch.zeros(2, 3), torch.zeros(4)],
        [torch.zeros(3, 2).T, torch.zeros(3)],
        [torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)],
        [torch.zeros(2, 3)],
    ],
    ids=["shape", "strides", "dtype", "number"],
)
def test_inputs_of_another_layout_are_told_apart(other):
    examples = [torch.ones(2, 3), torch.ones(3)]
    assert same_layout([torch.zeros(2, 3), torch.zeros(3)], examples)
    assert not same_layout(other, examples)
