"""Which graphs are compiled without vectors for a few elements."""

import pytest
import torch

from pyro_klmodes.engine.backends.short_loops import SHORT_LOOPS, for_short_loops
from tests.engine.backends.steps import traced


def chain(states):
    """Three turns of a hidden Markov chain, for 16 particles."""

    def turns(first, transition):
        alpha = first
        for _ in range(3):
            alpha = (alpha.unsqueeze(-1) + transition).exp().sum(1).log()
        return (alpha,)

    inputs = [torch.zeros(16, states), torch.zeros(16, states, states)]
    return traced(turns, inputs), inputs


def test_a_chain_of_few_states():
    assert for_short_loops(*chain(3)) == SHORT_LOOPS


@pytest.mark.parametrize("states", [1, 5, 8])
def test_a_chain_of_one_state_or_many(states):
    assert for_short_loops(*chain(states)) == {}


def test_large_tables_have_loops_of_their_own():
    x = torch.zeros(1000, 3)
    assert for_short_loops(traced(lambda x: (x.exp() + x,), [x]), [x]) == {}


def test_a_row_is_no_table():
    x = torch.zeros(3)
    assert for_short_loops(traced(lambda x: (x.exp() + x,), [x]), [x]) == {}


def test_numbers_that_decide_shapes_leave_the_question_open():
    x = torch.zeros(16, 3)
    graph = traced(lambda x: (x.exp() + x,), [x])
    (node,) = (n for n in graph.graph.nodes if "exp" in n.name)
    with graph.graph.inserting_before(node):
        graph.graph.call_function(torch.ops.aten.nonzero.default, (node.args[0],))
    assert for_short_loops(graph, [x]) == {}
