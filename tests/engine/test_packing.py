"""Tensors become one vector and come back as they were."""

import pytest
import torch

from pyro_klmodes.engine.packing import Packing

SHAPES = {
    "scalars and matrices": [(), (3,), (2, 2)],
    "empty ones": [(0,), (2,), (1, 0)],
    "one alone": [(2, 3)],
    "none": [],
}


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back(name):
    tensors = [torch.randn(shape) for shape in SHAPES[name]]
    packing = Packing.of(tensors)
    packed = packing.pack(tensors)
    assert len(packed) == (1 if len(tensors) > 1 else len(tensors))
    back = packing.unpack(packed)
    assert len(back) == len(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True))


def test_columns_of_a_matrix_keep_their_places():
    transposed = torch.arange(6.0).reshape(2, 3).t()
    packing = Packing.of([transposed, torch.ones(1)])
    assert torch.equal(packing.unpack(packing.pack([transposed, torch.ones(1)]))[0], transposed)


def test_other_types_and_large_tensors_stay_apart():
    assert not Packing.of([torch.ones(2), torch.ones(2, dtype=torch.float32)]).joined
    assert not Packing.of([torch.ones(2), torch.ones(2**15)]).joined
    assert Packing.of([torch.ones(2), torch.ones(3)]).joined
