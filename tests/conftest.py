"""Every test starts from a clean param store, a fixed seed, one thread and double precision."""

import pyro
import pytest
import torch

# These run in an environment without torch and Pyro, see test_arviz_1x.py.
collect_ignore = ["arviz_1x"]


@pytest.fixture(autouse=True)
def clean_state():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
