"""Doctests start from a clean param store and a fixed seed, on one thread."""

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded_doctests() -> None:
    """Make every doctest start alike."""
    torch.set_num_threads(1)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
