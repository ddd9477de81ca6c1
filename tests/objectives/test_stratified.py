"""Draws with shares are draws repeated: the objective of the one is the objective of the other."""

import math

import pytest
import torch

from pyro_klmodes.errors import IncompatibleEstimator
from pyro_klmodes.objectives import Part, PowerMean, ReverseKL, Stratified
from tests.registry import OBJECTIVES

TAKES_STRATA = [n for n in OBJECTIVES if OBJECTIVES[n]().takes_strata]
COUNTS = torch.tensor([3, 1, 2, 2])


def repeated(x):
    return x.repeat_interleave(COUNTS, 0)


@pytest.fixture
def log_w():
    return torch.randn(4, 3)


@pytest.fixture
def log_share():
    return (COUNTS * 4.0 / COUNTS.sum()).log()


def test_which_objectives_take_shares():
    assert set(TAKES_STRATA) == {
        "reverse_kl",
        "iwae",
        "renyi_half",
        "renyi_one",
        "renyi_two",
        "renyi_minus_one",
        "cubo",
        "forward_kl",
        "forward_kl_psis",
    }


# Pareto smoothing looks at the tail of the draws, which repetition makes longer.
@pytest.mark.parametrize("name", [n for n in TAKES_STRATA if n != "forward_kl_psis"])
def test_shares_are_repetitions(name, log_w, log_share):
    base = OBJECTIVES[name]()
    stratified = Stratified(base, log_share)
    torch.testing.assert_close(stratified(log_w), base(repeated(log_w)))
    theirs = base.credit(repeated(log_w)).split(COUNTS.tolist())
    torch.testing.assert_close(stratified.credit(log_w), torch.stack([c.sum(0) for c in theirs]))
    if base.has_wake:
        theirs = base.wake_credit(repeated(log_w)).split(COUNTS.tolist())
        summed = torch.stack([c.sum(0) for c in theirs])
        torch.testing.assert_close(stratified.wake_credit(log_w), summed)


@pytest.mark.parametrize("name", TAKES_STRATA)
def test_equal_shares_change_nothing(name, log_w):
    base = OBJECTIVES[name]()
    stratified = Stratified(base, torch.zeros(4))
    torch.testing.assert_close(stratified(log_w), base(log_w))
    torch.testing.assert_close(stratified.credit(log_w), base.credit(log_w))
    assert stratified.part is base.part
    assert stratified.shift == base.shift


@pytest.mark.parametrize("name", [n for n in TAKES_STRATA if OBJECTIVES[n]().part is Part.WHOLE])
def test_credit_is_the_derivative(name, log_w, log_share):
    stratified = Stratified(OBJECTIVES[name](), log_share)
    x = log_w.requires_grad_()
    (expected,) = torch.autograd.grad(stratified(x).sum(), x)
    torch.testing.assert_close(stratified.credit(x), expected)


def test_the_shares_carry_a_gradient():
    log_share = torch.zeros(2, requires_grad=True)
    log_w = torch.tensor([1.0, 3.0])
    (elbo,) = torch.autograd.grad(Stratified(ReverseKL(), log_share)(log_w), log_share)
    torch.testing.assert_close(elbo, -log_w / 2)
    (iwae,) = torch.autograd.grad(Stratified(PowerMean(0.0), log_share)(log_w), log_share)
    torch.testing.assert_close(iwae, -log_w.softmax(0))


def test_shares_by_outer_particle(log_w):
    shares = torch.randn(4, 3)
    stratified = Stratified(PowerMean(0.5), shares)
    alone = [Stratified(PowerMean(0.5), shares[:, m])(log_w[:, m]) for m in range(3)]
    torch.testing.assert_close(stratified(log_w), torch.stack(alone))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - set(TAKES_STRATA)))
def test_others_refuse(name):
    with pytest.raises(IncompatibleEstimator, match="unequal shares"):
        Stratified(OBJECTIVES[name](), torch.zeros(2))


def test_the_model_follows_its_own_objective(log_w, log_share):
    upper = Stratified(PowerMean(-1.0, sign=1), log_share)
    theirs = upper.for_model()
    assert theirs.base == PowerMean(0.0)
    torch.testing.assert_close(theirs(log_w), -repeated(log_w).logsumexp(0) + math.log(8))
    lower = Stratified(ReverseKL(), log_share)
    assert lower.for_model() is lower
