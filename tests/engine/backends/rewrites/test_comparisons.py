"""Comparisons are made again for every user, where there are many elements."""

import torch

from tests.engine.backends.rewrites.rewritten import rewritten


def count(size):
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def function(x):
        positive = x > 0
        return torch.where(positive, x, 0.0) * torch.where(positive, 1.0, x).exp()

    before, after = rewritten(function, x)
    assert before.count("gt.Scalar") == 1
    return after.count("gt.Scalar")


def test_every_user_has_its_own():
    assert count(1000) == 2


def test_few_elements_are_compared_once():
    assert count(10) == 1
