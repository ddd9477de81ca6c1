"""Of two exponentials, of which one is of zero, one is left."""

from functools import partial

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from tests.engine.backends.rewrites.rewritten import rewritten

BAD = [float("inf"), float("-inf"), float("nan")]
X = torch.tensor([0.0, -0.0, 1e-300, -1e-300, 0.3, -0.3, 40.0, -40.0, 800.0, -800.0, *BAD])


def terms(n):
    m = n.clamp_min(0)
    return torch.stack([(-m).exp(), (n - m).exp()])


def test_both_exponentials_have_one_argument():
    before, after = rewritten(terms, X)
    assert (before.count("abs.default"), before.count("sub.Tensor")) == (0, 1)
    assert after.count("abs.default") == after.count("exp.default") == 2  # compilers see it once
    assert "clamp_min.default" in after  # an infinite n is found by n - m


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_the_logistic_likelihood_and_its_gradient(y):
    def loss_and_slope(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            # mapped, it is taken to pieces
            each = torch.vmap(partial(cross_entropy, reduction="none"))(x, torch.full_like(x, y))
            (slope,) = torch.autograd.grad(each.sum(), x)
        return torch.stack([each.detach(), slope])

    _, after = rewritten(loss_and_slope, X)
    assert "abs.default" in after


@pytest.mark.parametrize(
    "other",
    [
        lambda n: (-n.clamp_min(1)).exp() + (n - n.clamp_min(1)).exp(),
        lambda n: (2 * n - n.clamp_min(0)).exp(),
        lambda n: torch.sub(n, n.clamp_min(0), alpha=2).exp(),
        lambda n: (n.clamp_min(0)).exp(),
    ],
    ids=["one", "another number", "twice", "as it is"],
)
def test_others_are_left_alone(other):
    before, after = rewritten(other, X)
    assert "abs.default" not in after
    assert before.count("exp.default") == after.count("exp.default")
