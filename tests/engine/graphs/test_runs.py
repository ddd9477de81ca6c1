"""A graph is run node by node, and keeps no value longer than it is needed."""

import pickle
import weakref

import pytest
import torch

from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.liveness import last_used_by
from pyro_klmodes.engine.graphs.parts import placeholders
from pyro_klmodes.engine.graphs.runs import result_of, run_through
from tests.engine.graphs.made import aten, graph_of

X, Y = torch.randn(3), torch.randn(3)
HELD = torch.arange(3.0)


def graph():
    return graph_of(lambda x, y: ((x.exp() + HELD).sum(), x * y), X, Y)


def test_every_node_comes_with_what_it_was_called_with_and_gave():
    made = graph()
    found = list(run_through(made, [X, Y]))
    assert [done.node for done in found] == list(made.graph.nodes)
    (exp,) = [done for done in found if done.node.target is aten.exp.default]
    assert exp.args == (X,)
    assert torch.equal(exp.value, X.exp())
    assert torch.equal(found[-1].value[1], X * Y)


def test_what_it_returns_is_what_the_graph_returns():
    made = graph()
    for a, b in zip(result_of(made, [X, Y]), made(X, Y), strict=True):
        assert torch.equal(a, b)


def test_values_are_let_go_after_their_last_use():
    made, gone = graph(), []
    for done in run_through(made, [X, Y]):
        if done.node.target is aten.exp.default:
            gone.append(weakref.ref(done.value))
        elif gone and done.node.op == "output":
            assert gone[0]() is None
        del done
    assert gone


def test_there_is_an_input_for_every_placeholder():
    for inputs in ([X], [X, Y, X]):
        with pytest.raises(ValueError, match="zip"):
            result_of(graph(), inputs)


def test_last_uses():
    made = graph()
    done = last_used_by(made.graph)
    x, y = placeholders(made)
    (product,) = made.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
    assert set(done[product]) == {x, y}


def test_a_module_runs_its_graph_as_it_is_now():
    made = graph()
    late = module_of(made, made.graph)
    assert torch.equal(late(X, Y)[1], X * Y)
    (product,) = late.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
    product.target = aten.add.Tensor
    late.recompile()
    assert torch.equal(late(X, Y)[1], X + Y)


def test_a_module_can_be_pickled_and_shown():
    made = graph()
    late = module_of(made, made.graph)
    other = pickle.loads(pickle.dumps(late))
    assert torch.equal(other(X, Y)[0], late(X, Y)[0])
    assert "exp" in late.code
    assert torch.equal(late(X, Y)[1], X * Y)
