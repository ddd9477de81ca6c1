"""Whole training steps: fewer operations, the same bits, the same consumption of randomness."""

import copy

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.graphs.clean import PASSES, clean
from pyro_klmodes.engine.graphs.operations import is_mutable
from pyro_klmodes.engine.graphs.passes.axis_indices import view_axis_indices
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.passes.fills import expand_fills
from pyro_klmodes.engine.graphs.passes.one_index import use_one_index
from pyro_klmodes.engine.graphs.passes.sink_expands import sink_expands
from pyro_klmodes.engine.graphs.split import random_nodes
from pyro_klmodes.engine.graphs.values import refresh
from tests.engine.graphs.made import assert_same, aten, calls, run
from tests.engine.graphs.steps import cases, iwae, reverse_kl, traced

# at most this share of the operations is left
LEFT = {"schools": 0.75, "logistic": 0.8, "radon": 0.8, "mixture": 0.8}

# these put cheap operations in place of costly ones
TRADES = (expand_fills, sink_expands, view_axis_indices, use_one_index)


def count(graph):
    return len(calls(graph))


@pytest.mark.parametrize("loss", [reverse_kl, iwae])
@pytest.mark.parametrize("name", list(cases()))
def test_a_clean_step_has_the_same_bits(name, loss):
    graph, inputs = traced(name, loss)
    assert inputs[0].dtype == torch.float64
    expected = [run(graph, inputs, seed) for seed in range(3)]
    cleaned = clean(copy.deepcopy(graph), inputs)
    for seed in range(3):
        assert_same(run(cleaned, inputs, seed), expected[seed])
    assert count(cleaned) <= LEFT[name] * count(graph)
    assert all(not is_mutable(n) for n in cleaned.graph.nodes if n not in random_nodes(cleaned))
    assert [str(n.target) for n in random_nodes(cleaned)] == [
        str(n.target) for n in random_nodes(graph)
    ]


def test_a_clean_step_has_the_same_bits_in_single_precision():
    torch.set_default_dtype(torch.float32)
    graph, inputs = traced("radon", iwae)
    assert inputs[0].dtype == torch.float32
    expected = run(graph, inputs)
    assert_same(run(clean(graph, inputs), inputs), expected)


def test_other_inputs_than_the_examples_give_the_same_bits():
    graph, inputs = traced("schools", iwae)
    cleaned = clean(copy.deepcopy(graph), inputs)
    others = [torch.randn_like(x) for x in inputs]
    others[2] = others[2].abs() + 0.1
    assert_same(run(cleaned, others), run(graph, others))


@pytest.mark.parametrize("one_pass", PASSES, ids=lambda p: p.__name__)
def test_each_pass_alone_keeps_the_bits_of_a_step(one_pass):
    graph, inputs = traced("radon", iwae)
    expected = run(graph, inputs)
    refresh(graph, inputs)
    drop_dead_code(graph)
    before = count(graph)
    graph = drop_dead_code(one_pass(graph))
    graph.graph.lint()
    graph.recompile()
    assert_same(run(graph, inputs), expected)
    assert count(graph) <= before or one_pass in TRADES


def test_cleaning_twice_changes_nothing():
    graph, inputs = traced("schools", reverse_kl)
    once = clean(graph, inputs)
    before = [f"{n.target}{n.args}" for n in once.graph.nodes if n.op == "call_function"]
    twice = clean(once, inputs)
    assert [f"{n.target}{n.args}" for n in twice.graph.nodes if n.op == "call_function"] == before


def test_logs_of_repeated_scales_are_taken_of_the_scales():
    graph, inputs = traced("radon", reverse_kl)
    cleaned = clean(graph, inputs)
    logs = [n.meta["val"].numel() for n in cleaned.graph.nodes if n.target is aten.log.default]
    assert logs
    assert max(logs) <= 16 * 89


def test_an_enumerated_index_is_gone():
    graph, inputs = traced("mixture", reverse_kl)
    assert any(c.startswith("index") for c in calls(graph))
    assert not any(c.startswith("index") for c in calls(clean(graph, inputs)))


def test_the_generator_is_left_alone():
    graph, inputs = traced("schools", reverse_kl)
    before = torch.get_rng_state()
    clean(graph, inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_examples_are_left_alone():
    def function(x):
        x.add_(1)
        return (x.exp(),)

    x = torch.zeros(3)
    graph = make_fx(function)(torch.zeros(3))
    clean(graph, [x])
    assert torch.equal(x, torch.zeros(3))


def test_state_is_left_alone():
    state = torch.zeros(3)

    def function(x):
        state.add_(1)
        return (x.exp() + state,)

    graph = make_fx(function)(torch.zeros(3))
    before = state.clone()
    cleaned = clean(graph, [torch.zeros(3)])
    assert torch.equal(state, before)
    assert_same(cleaned(torch.zeros(3)), [torch.ones(3) + before + 1])
