"""Splitting a graph changes neither its values nor what it takes from the generator."""

import copy

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.split import (
    drop_unused_inputs,
    random_nodes,
    split_invariant,
    split_random,
    used_inputs,
)
from pyro_klmodes.errors import UnsupportedStructure
from tests.engine.graphs.made import assert_same, aten, calls, graph_of, run
from tests.engine.graphs.random_graphs import example_inputs, program
from tests.engine.graphs.steps import iwae, reverse_kl, traced


def run_split(graph, inputs, seed=0):
    prelude, body = split_random(graph)
    assert not random_nodes(body)
    assert random_nodes(prelude) or not prelude(*inputs)
    torch.manual_seed(seed)
    draws = prelude(*inputs)
    state = torch.get_rng_state()
    return [*body(*inputs, *draws), state]


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_are_cleaned_and_split_to_the_bit(seed):
    examples, inputs = example_inputs(seed), example_inputs(seed + 1000)
    graph = make_fx(program(seed))(*examples)
    expected = run(graph, inputs)
    cleaned = clean(copy.deepcopy(graph), examples)
    assert_same(run(cleaned, inputs), expected)
    assert [a.target for a in random_nodes(cleaned)] == [a.target for a in random_nodes(graph)]
    assert_same(run_split(cleaned, inputs), expected)


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_without_draws_are_split_by_what_is_fixed(seed):
    examples, inputs = example_inputs(seed), example_inputs(seed + 1000)
    graph = clean(make_fx(program(seed, draws=False))(*examples), examples)
    expected = run(graph, inputs)
    for fixed in ([], [0], [1, 2], [0, 1, 2]):
        once, body, given, kept = split_invariant(graph, fixed)
        ready = once(*[inputs[i] for i in given])
        assert_same(run(body, [*(inputs[i] for i in kept), *ready]), expected)


@pytest.mark.parametrize("loss", [reverse_kl, iwae])
@pytest.mark.parametrize("name", ["schools", "radon"])
def test_steps_are_split_to_the_bit(name, loss):
    graph, inputs = traced(name, loss)
    expected = run(graph, inputs)
    cleaned = clean(graph, inputs)
    prelude, body = split_random(cleaned)
    assert calls(prelude) == ["empty.memory_format", "normal_.default"]
    assert_same(run_split(cleaned, inputs), expected)
    torch.manual_seed(0)
    everything = [*inputs, *prelude(*inputs)]
    once, rest, fixed, kept = split_invariant(body, range(2, len(inputs)))
    ready = once(*[everything[i] for i in fixed])
    assert_same(rest(*[everything[i] for i in kept], *ready), expected[:-1])


def test_all_kinds_of_draws_are_found():
    def function(x):
        a = torch.normal(x, 1.0) + torch.randn(3) + torch.rand_like(x) + torch.poisson(x)
        b = torch.empty(3).normal_() + torch.empty(3).exponential_() + torch.empty(3).random_(4)
        c = torch._standard_gamma(x) + torch.binomial(x.round(), x / 4)
        return (a + b + c,)

    names = [str(n.target).split(".")[1] for n in random_nodes(graph_of(function, torch.rand(3)))]
    assert sorted(names) == sorted(
        [
            "normal",
            "randn",
            "rand_like",
            "poisson",
            "normal_",
            "exponential_",
            "random_",
            "_standard_gamma",
            "binomial",
        ]
    )


def test_derivatives_of_samplers_are_deterministic():
    def function(x):
        z = torch._standard_gamma(x)
        return (torch._standard_gamma_grad(x, z), torch._dirichlet_grad(x, x, x.sum()))

    graph = graph_of(function, torch.rand(3))
    assert [str(n.target) for n in random_nodes(graph)] == ["aten._standard_gamma.default"]
    assert_same(run_split(graph, [torch.ones(3)]), run(graph, [torch.ones(3)]))


def test_a_draw_may_depend_on_another_and_on_parameters():
    def function(loc, scale):
        z = loc + scale * torch.empty(3).normal_()
        return (torch.poisson(z.exp()) * torch.bernoulli(z.sigmoid()),)

    graph = clean(make_fx(function)(torch.ones(3), torch.ones(3)), [torch.ones(3)] * 2)
    inputs = [torch.randn(3), torch.rand(3)]
    assert_same(run_split(graph, inputs), run(graph, inputs))
    prelude, body = split_random(graph)
    assert len(prelude(*inputs)) == 2  # z is in the prelude only
    assert calls(body) == ["mul.Tensor"]


def test_a_draw_that_nobody_uses_is_still_drawn():
    def function(x):
        torch.randn(5)
        return (x + torch.rand(3),)

    graph = graph_of(function, torch.ones(3))
    assert_same(run_split(graph, [torch.ones(3)]), run(graph, [torch.ones(3)]))
    assert len(split_random(graph)[0](torch.ones(3))) == 1


def test_a_draw_may_be_returned_itself():
    graph = graph_of(lambda x: ((z := torch.randn(3)), x + z), torch.ones(3))
    assert_same(run_split(graph, [torch.ones(3)]), run(graph, [torch.ones(3)]))


def test_a_graph_without_draws_has_an_empty_prelude():
    graph = graph_of(lambda x: (x.exp(),), torch.ones(3))
    prelude, body = split_random(graph)
    assert prelude(torch.ones(3)) == ()
    assert calls(prelude) == []
    assert calls(body) == ["exp.default"]


def test_a_draw_into_memory_of_an_input_is_refused():
    def function(x):
        x.normal_()
        return (x + 1,)

    with pytest.raises(UnsupportedStructure, match="aten.normal_.default"):
        split_random(graph_of(function, torch.ones(3)))


def test_what_depends_on_data_alone_is_computed_once():
    def function(w, x, y):
        return ((x.exp().sum(0) * w + (y + 1) * 2).sum(), w.sin())

    examples = [torch.randn(3), torch.randn(100, 3), torch.randn(3)]
    once, body, fixed, kept = split_invariant(graph_of(function, *examples), [1, 2])
    assert (fixed, kept) == ((1, 2), (0,))
    assert [tuple(x.shape) for x in once(*examples[1:])] == [(3,), (3,)]
    assert calls(body) == ["mul.Tensor", "add.Tensor", "sum.default", "sin.default"]


def test_views_large_cheap_results_and_single_numbers_are_computed_anew():
    def function(w, x, s):
        cheap = x.unsqueeze(-1) - x
        return ((cheap * w).sum() * (s + 1), x.unsqueeze(0).expand(5, 100) * w)

    examples = [torch.randn(()), torch.randn(100), torch.randn(())]
    once, _, _, kept = split_invariant(graph_of(function, *examples), [1, 2])
    assert once(*examples[1:]) == ()
    assert kept == (0, 1, 2)


def test_too_large_results_are_computed_anew():
    graph = graph_of(lambda w, x: (w + x.log(),), torch.ones(()), torch.ones(100))
    assert split_invariant(graph, [1], max_elements=99).kept == (0, 1)
    assert split_invariant(graph, [1], max_elements=100).kept == (0,)


def test_unused_inputs_are_dropped():
    examples = [torch.ones(2) for _ in range(3)]
    graph = graph_of(lambda x, y, z: (x + z, torch.rand(2)), *examples)
    small, kept = drop_unused_inputs(graph)
    assert kept == (0, 2)
    x = torch.randn(3, 2)
    assert_same(run(small, [x[0], x[2]]), run(graph, [*x]))
    assert aten.rand.default in [n.target for n in small.graph.nodes]


def test_used_inputs_are_those_that_results_or_draws_depend_on():
    def function(x, y, z):
        torch.poisson(y)
        return (z.exp(),)

    graph = make_fx(function)(*(torch.ones(3) for _ in range(3)))
    assert used_inputs(graph) == (1, 2)
    assert drop_unused_inputs(graph)[1] == (1, 2)
