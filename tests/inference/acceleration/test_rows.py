"""Rows are iterations of their own: batches, frozen rows, failures, callbacks, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import mixed_poisson
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.acceleration import Anderson, Plain, Squarem, iterate
from tests.inference.acceleration import maps

ALL = [Plain(), Squarem(), Squarem(patience=0), Anderson(), Anderson(1)]


@pytest.mark.parametrize("accelerator", ALL)
def test_a_batch_is_its_rows_one_by_one(accelerator):
    theta0 = mixed_poisson.starts(3, seed=3)
    options = {"steps": 200, "tolerance": 1e-4}
    together = iterate(accelerator, theta0, maps.raw, **options)
    for i in range(3):
        alone = iterate(accelerator, theta0[i : i + 1], maps.raw, **options)
        assert together.evaluations[i] == alone.evaluations[0]
        assert together.rejected[i] == alone.rejected[0]
        torch.testing.assert_close(together.theta[i], alone.theta[0], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(together.value[i], alone.value[0])
    assert len(together.values) == together.evaluations.max()
    assert len(together.evaluations.unique()) > 1 or accelerator == Plain()


@pytest.mark.parametrize("accelerator", ALL)
def test_converged_rows_are_frozen_and_can_be_skipped(accelerator):
    theta0 = mixed_poisson.starts(8, seed=4)
    evaluated = torch.zeros(8, dtype=torch.long)

    def only_active(theta, rows):
        evaluated[rows] += 1
        assert len(theta) == len(rows)
        return maps.raw(theta)

    options = {"steps": 300, "tolerance": 1e-4}
    skipped = iterate(accelerator, theta0, only_active, skip_converged=True, **options)
    whole = iterate(accelerator, theta0, maps.raw, **options)
    assert torch.equal(evaluated, skipped.evaluations)
    assert torch.equal(skipped.evaluations, whole.evaluations)
    torch.testing.assert_close(skipped.theta, whole.theta)
    torch.testing.assert_close(skipped.values, whole.values)
    value_at_theta = maps.raw(whole.theta)[1]
    torch.testing.assert_close(whole.value, value_at_theta)
    torch.testing.assert_close(whole.mapped, maps.raw(whole.theta)[0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 30), min_size=4, max_size=9).filter(lambda c: sum(c) > 3),
    seed=st.integers(0, 1000),
)
def test_the_value_never_falls_on_any_data(counts, seed):
    values = torch.arange(len(counts)).double()
    x = values.repeat_interleave(torch.tensor(counts))
    theta0 = mixed_poisson.starts(4, seed)
    for accelerator in ALL:
        found = iterate(
            *(accelerator, theta0, lambda theta: mixed_poisson.em_step(theta, x)),
            **{"steps": 30, "tolerance": 1e-9},
        )
        allowed = 1e-12 * (1 + found.value.abs())
        assert (found.values.diff(dim=0) >= -allowed).all()
        assert (found.value >= found.values[0] - allowed).all()


def test_a_row_that_fails_stops_and_the_others_go_on():
    theta0 = mixed_poisson.starts(4)
    theta0[1, 0] = 1.5  # no weight
    for accelerator in ALL:
        found = iterate(accelerator, theta0, maps.raw, steps=3000, tolerance=1e-5)
        assert found.failed.tolist() == [False, True, False, False]
        assert found.converged.tolist() == [True, False, True, True]
        assert found.evaluations[1] == 1
        assert torch.equal(found.theta[1], theta0[1])


def test_a_map_that_breaks_down_on_its_way_keeps_its_last_good_point():
    def step(x):  # the map is not finite from 8 on
        return torch.where(x < 8, 2 * x, torch.nan), x[:, 0]

    found = iterate(Plain(), torch.ones(1, 1), step, steps=20, tolerance=1e-3)
    assert found.failed.tolist() == [True]
    assert found.theta.tolist() == [[4.0]]
    assert found.values[:, 0].tolist() == [1.0, 2.0, 4.0, 4.0]


def test_proposals_outside_of_the_support_are_given_up():
    """Halving towards zero, with a value only above it: long steps overshoot."""

    def step(x):
        return torch.where(x >= 0, 0.9 * x, torch.nan), torch.where(x >= 0, -x, torch.nan)[:, 0]

    class Overshooting(Plain):
        def propose(self, memory, point):
            return point.theta - 20 * (point.theta - point.mapped)

    found = iterate(Overshooting(), torch.ones(3, 1), step, steps=2000, tolerance=1e-6)
    assert found.converged.all()
    assert (found.rejected > 5).all()
    assert (found.values.diff(dim=0) >= 0).all()


def test_a_callback_sees_every_evaluation_and_can_stop():
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.evaluation == 9

    theta0 = mixed_poisson.starts(3)
    found = iterate(Anderson(), theta0, maps.raw, steps=99, tolerance=1e-9, callback=callback)
    assert [p.evaluation for p in seen] == list(range(10))
    assert torch.equal(seen[0].theta, theta0)
    assert torch.equal(torch.stack([p.value for p in seen]), found.values)
    assert torch.equal(seen[-1].residual, found.residual)
    assert seen[-1].active.all()
    assert not found.converged.any()


@pytest.mark.parametrize("accelerator", [Squarem(), Anderson()])
def test_single_precision(accelerator):
    theta0 = mixed_poisson.starts(20).float()
    found = iterate(accelerator, theta0, maps.raw, steps=3000, tolerance=1e-4)
    assert found.theta.dtype == torch.float32
    assert found.converged.all()
    exact = maps.raw(found.theta.double())[1]
    assert (exact - mixed_poisson.MAX_LOG_LIKELIHOOD).abs().max() < 0.05
    assert (exact - maps.raw(theta0.double())[1]).min() > -0.05


def test_a_start_at_the_fixed_point_takes_one_evaluation():
    step, fixed_point, _ = maps.affine([0.9, 0.5])
    for accelerator in ALL:
        found = iterate(accelerator, fixed_point[None], step, steps=9, tolerance=1e-9)
        assert found.evaluations.tolist() == [1]


def test_steps_may_differentiate():
    def step(x):
        x = x.detach().requires_grad_()
        value = -(x**2).sum(-1)
        (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return x + 0.4 * gradient, value

    found = iterate(Anderson(), torch.ones(2, 3), step, steps=20, tolerance=1e-9)
    assert found.theta.abs().max() < 1e-8
    assert not found.theta.requires_grad
    assert not found.values.requires_grad


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Squarem(shortest=0.0), "shortest=0.0"),
        (lambda: Squarem(longest=0.5), "longest=0.5 must be at least shortest=1.0"),
        (lambda: Squarem(factor=1.0), "factor=1.0"),
        (lambda: Squarem(patience=-1), "patience=-1"),
        (lambda: Anderson(0), "depth=0"),
        (lambda: Anderson(2.0), "depth=2.0"),
    ],
)
def test_options_out_of_range(make, match):
    with pytest.raises(InvalidArgument, match=match):
        make()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": 0}, "steps=0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"theta0": torch.ones(3)}, r"shape \(R, P\), not \(3,\)"),
        ({"theta0": torch.ones(3, 2, dtype=torch.long)}, "int64"),
        ({"theta0": torch.tensor([[1.0], [torch.nan]])}, "row 1"),
        ({"step": lambda x: (x, x)}, r"of shape \(2,\), not \(2, 1\) and \(2, 1\)"),
    ],
)
def test_bad_input(changes, match):
    given_ = {"theta0": torch.ones(2, 1), "step": lambda x: (x, x.sum(-1)), "steps": 3}
    arguments = {**given_, "tolerance": 1e-3, **changes}
    with pytest.raises(InvalidArgument, match=match):
        iterate(Plain(), arguments.pop("theta0"), arguments.pop("step"), **arguments)
