"""Calls are taken apart into tensors and the rest, and told apart."""

import types

import pytest
import torch

from pyro_klmodes.engine.calls import Arguments

X, Y = torch.ones(2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)


def kind(*args, **kwargs):
    return Arguments.of(args, kwargs).kind


def test_there_and_back():
    call = Arguments.of((X, [Y, 3], {"a": (X, "b")}), {"k": Y, "n": None})
    assert len(call.tensors) == 4
    args, kwargs = call.call_with([x + 1.0 for x in call.tensors])
    assert torch.equal(args[0], X + 1.0)
    assert torch.equal(args[1][0], Y + 1.0)
    assert args[1][1] == 3
    assert args[2]["a"][1] == "b"
    assert torch.equal(kwargs["k"], Y + 1.0)
    assert kwargs["n"] is None


def test_other_numbers_in_tensors_are_the_same_kind():
    assert kind(X, 2.0, a=[Y]) == kind(X + 5.0, 2.0, a=[Y - 1.0])
    assert kind(X, float("nan")) == kind(X, float("nan"))


THING = types.SimpleNamespace()
OTHERS = {
    "shape": lambda: kind(torch.ones(3)),
    "type": lambda: kind(X.float()),
    "integers": lambda: kind(X.long()),
    "stride": lambda: kind(torch.ones(4)[::2]),
    "gradient": lambda: kind(torch.ones(2, requires_grad=True)),
    "sparse": lambda: kind(torch.ones(2).to_sparse()),
    "number of arguments": lambda: kind(X, X),
    "keyword": lambda: kind(x=X),
    "nesting": lambda: kind([X]),
    "parameter": lambda: kind(torch.nn.Parameter(X, requires_grad=False)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_calls_are_other_kinds(name):
    assert OTHERS[name]() != kind(X)


def test_what_is_no_tensor_counts_by_value_or_by_which_it_is():
    values = [1, 1.0, True, "1", None, b"1", 0.0, -0.0, torch.float32, THING]
    kinds = [kind(value) for value in values]
    assert len(set(kinds)) == len(values)
    assert kind(THING) == kind(THING) != kind(types.SimpleNamespace())


def test_one_tensor_twice_is_not_two_tensors():
    assert kind(X, X) != kind(X, X.clone())
    same = torch.full((2,), 3.0)
    assert kind(X, X) == kind(same, same)


def test_tensors_that_a_graph_cannot_take():
    def why(*args):
        return Arguments.of(args, {}).why_not_plain

    assert why(X, Y) is None
    assert "tensor 2 of the arguments (requires_grad=True)" in why(
        X, torch.ones(1, requires_grad=True)
    )
    assert "tensor 1 of the arguments is not an ordinary dense" in why(X.to_sparse())


def test_objects_by_name():
    call = Arguments.of((X, THING, 3), {})
    assert call.objects == {"the argument of type SimpleNamespace (number 2)": THING}
