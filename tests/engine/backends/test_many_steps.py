"""Many steps in one go are as many single ones, on all tiers."""

import pytest
import torch

from pyro_klmodes.engine.backends import build, many_steps
from pyro_klmodes.engine.backends.library import Library
from pyro_klmodes.engine.backends.step_loop import StepLoop
from tests.engine.backends.steps import STATE, copies, inputs_of_step, step, traced

TIERS = ["graph", "inductor", "aot"]
STEPS = 70  # more than the library takes between two chances to interrupt it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    inputs = inputs_of_step()
    graph, cache = traced(step, inputs), tmp_path_factory.mktemp("cache")
    programs = {tier: build(graph, inputs, tier, cache, in_place=STATE) for tier in TIERS}
    return programs, inputs


@pytest.mark.parametrize("tier", TIERS)
def test_they_are_the_steps_that_the_function_takes(made, tier):
    programs, inputs = made
    noise = torch.randn(STEPS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state, expected, losses = copies(inputs), copies(inputs), []
    for row in noise:
        expected[4] = row
        *expected[:4], loss = step(*expected)
        losses.append(loss)
    (found,) = many_steps(programs[tier], state, {4: noise}, STEPS)
    torch.testing.assert_close(found, torch.stack(losses), rtol=1e-13, atol=0)
    torch.testing.assert_close(state[:4], expected[:4], rtol=1e-12, atol=1e-13)
    assert torch.equal(state[4], inputs[4])  # rows come in its place
    assert (expected[0] - inputs[0]).abs().max() > 0.2


@pytest.mark.parametrize("tier", TIERS)
def test_rows_may_lie_anywhere(made, tier):
    programs, inputs = made
    wide = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gaps, dense = copies(inputs), copies(inputs)
    (a,) = many_steps(programs[tier], gaps, {4: wide.T}, 5)
    (b,) = many_steps(programs[tier], dense, {4: wide.T.contiguous()}, 5)
    assert torch.equal(a, b)
    assert torch.equal(gaps[0], dense[0])


def test_the_library_takes_them_by_itself(made):
    assert isinstance(made[0]["aot"], Library)


def test_without_a_state_there_are_single_calls(tmp_path):
    x = torch.ones(2)
    program = build(traced(lambda x: (x.exp(),), [x]), [x], "aot", tmp_path)
    assert not isinstance(program, Library)
    (found,) = many_steps(program, [x], {0: torch.zeros(3, 2)}, 3)
    assert torch.equal(found, torch.ones(3, 2))


def test_nothing_is_kept_of_what_it_was_given(made):
    programs, inputs = made
    state = copies(inputs)
    before = [x._use_count() for x in state]
    many_steps(programs["aot"], state, {4: torch.zeros(STEPS, 3, dtype=torch.float64)}, STEPS)
    programs["aot"](state)
    assert [x._use_count() for x in state] == before


def test_results_of_any_shape_and_strides(tmp_path):
    def table(total, x):
        return total + x.sum(), x.sum(), (x + 1.0).T.contiguous().T, x.exp()

    x = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    rows = torch.stack([x, x - 1.0, x + 2.0])
    total = torch.zeros((), dtype=torch.float64)
    program = build(traced(table, [total, x]), [total, x], "aot", tmp_path, in_place={0: 0})
    found = many_steps(program, [total, x], {1: rows}, 3)
    assert total == rows.sum() != 0.0
    expected = zip(*(table(total, row)[1:] for row in rows), strict=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.stack(b))


def test_an_operation_that_fails_is_an_error(tmp_path, capfd):
    def pick(x, i):
        return x + 1.0, x.index_select(0, i) * 2.0

    x, i = torch.arange(3.0), torch.tensor([0, 2])
    program = build(traced(pick, [x, i]), [x, i], "aot", tmp_path, in_place={0: 0})
    assert program([x, i])[0].tolist() == [0.0, 4.0]
    with pytest.raises(RuntimeError, match="operation of the compiled library has failed"):
        many_steps(program, [x, i], {1: torch.tensor([[0, 1], [0, 3]])}, 2)
    assert "index out of bounds" in capfd.readouterr().err


def test_a_library_that_calls_by_name_is_called_by_torch(tmp_path):
    def roots(a, total):
        return torch.linalg.eigvalsh(a), total + a.sum()

    total = torch.zeros((), dtype=torch.float64)
    a = torch.eye(3, dtype=torch.float64) * torch.arange(1.0, 4.0, dtype=torch.float64)
    program = build(traced(roots, [a, total]), [a, total], "aot", tmp_path, in_place={1: 1})
    assert not isinstance(program, Library)
    (found,) = many_steps(program, [a, total], {0: torch.stack([a, 2 * a])}, 2)
    torch.testing.assert_close(found[:, -1], torch.tensor([3.0, 6.0], dtype=torch.float64))
    assert total == 18.0


def test_what_is_no_library_has_no_loop(tmp_path):
    path = tmp_path / "library.so"
    path.write_bytes(b"machine code")
    assert StepLoop.of(path) is None
