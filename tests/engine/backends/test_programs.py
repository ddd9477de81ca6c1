"""The same step on all tiers; each compiled once, for all tests of this module."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import psutil
import pytest
import torch
from torch._inductor import config as inductor_config

from pyro_klmodes.engine.backends import NoCompiler, build
from tests.engine.backends.steps import STATE, copies, inputs_of_step, step, traced

TIERS = ["graph", "inductor", "aot"]


class Compiled(NamedTuple):
    programs: dict
    inputs: list
    changed: list  # what compiling changed in this process
    graph: object
    cache: object


def surroundings():
    return {
        "environment": dict(os.environ),
        "settings": inductor_config.save_config_portable(),
        "warnings": list(warnings.filters),
        "processes": {child.pid for child in psutil.Process().children(recursive=True)},
        "gradients": torch.is_grad_enabled(),
        "random numbers": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    torch.manual_seed(0)
    inputs = inputs_of_step()
    graph, cache = traced(step, inputs), tmp_path_factory.mktemp("cache")
    before = surroundings()
    programs = {tier: build(graph, inputs, tier, cache, in_place=STATE) for tier in TIERS}
    after = surroundings()
    changed = [name for name in before if before[name] != after[name]]
    return Compiled(programs, inputs, changed, graph, cache)


@pytest.mark.parametrize("tier", TIERS)
def test_a_program_takes_the_steps_that_the_function_takes(compiled, tier):
    program, state = compiled.programs[tier], copies(compiled.inputs)
    expected = copies(compiled.inputs)
    for _ in range(50):
        noise = torch.randn(3)
        state[4] = expected[4] = noise
        (loss,) = program(state)
        *expected[:4], expected_loss = step(*expected)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-13, atol=0)
    # fifty steps of 0.01 each, so the parameters are far from where they began
    assert expected[0].abs().max() > 0.2
    torch.testing.assert_close(state, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tier", TIERS)
def test_what_a_program_gives_stays_when_it_is_called_again(compiled, tier):
    program, state = compiled.programs[tier], copies(compiled.inputs)
    losses = [program(state)[0] for _ in range(5)]
    kept = [float(loss) for loss in losses]
    program(state)
    assert [float(loss) for loss in losses] == kept
    assert len(set(kept)) == 5


@pytest.mark.parametrize("tier", TIERS)
def test_inputs_that_are_not_replaced_stay(compiled, tier):
    given = copies(compiled.inputs)
    handed_in = list(given)
    compiled.programs[tier](handed_in)
    assert all(a is b for a, b in zip(handed_in, given, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given[4:], compiled.inputs[4:], strict=True))


@pytest.mark.parametrize("tier", TIERS)
def test_a_program_gives_no_gradients(compiled, tier):
    state = copies(compiled.inputs)
    state[5].requires_grad_()
    (loss,) = compiled.programs[tier](state)
    assert not loss.requires_grad


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinities_and_nan_keep_their_meaning(compiled, tier, value):
    state = copies(compiled.inputs)
    state[6][2] = value
    expected = step(*state)
    (loss,) = compiled.programs[tier](state)
    assert not torch.isfinite(loss)
    torch.testing.assert_close(loss, expected[-1], equal_nan=True)
    torch.testing.assert_close(state[:4], list(expected[:4]), equal_nan=True)


def test_compiling_leaves_the_process_as_it_was(compiled):
    assert compiled.changed == []


def test_a_kept_library_is_loaded_without_compiling(compiled, monkeypatch):
    monkeypatch.setattr("pyro_klmodes.engine.backends.ahead._compile", None)
    program = build(compiled.graph, compiled.inputs, "aot", compiled.cache, in_place=STATE)
    first, second = copies(compiled.inputs), copies(compiled.inputs)
    assert torch.equal(program(first)[0], compiled.programs["aot"](second)[0])


def test_a_kept_library_needs_no_compiler(compiled, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    build(compiled.graph, compiled.inputs, "aot", compiled.cache, in_place=STATE)


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["inductor", "aot"])
def test_another_thread_compiles_and_this_one_draws_what_it_draws_alone(tmp_path, tier):
    torch.manual_seed(0)
    inputs, made = inputs_of_step(), []
    graph = traced(step, inputs)
    thread = threading.Thread(
        target=lambda: made.append(build(graph, inputs, tier, tmp_path, in_place=STATE))
    )
    torch.manual_seed(1)
    drawn = []
    thread.start()
    while thread.is_alive():
        drawn.append(torch.randn(100))
        thread.join(0.01)
    torch.manual_seed(1)
    assert all(torch.equal(x, torch.randn(100)) for x in drawn)
    state = copies(inputs)
    expected = step(*copies(inputs))
    assert torch.equal(made[0](state)[0], expected[-1])
    torch.testing.assert_close(state[:4], list(expected[:4]), rtol=1e-13, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["inductor", "aot"])
def test_another_thread_is_told_why_nothing_was_compiled(tmp_path, tier, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    x = torch.randn(3)
    graph = traced(lambda x: (x + 1,), [x])
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(NoCompiler, match="CXX is 'no-such-compiler', which is not there"),
    ):
        executor.submit(build, graph, [x], tier, tmp_path).result()
