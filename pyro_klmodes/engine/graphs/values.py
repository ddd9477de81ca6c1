"""Shapes, dtypes and strides of nodes, kept as tensors without data in ``node.meta["val"]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Target, map_arg

from pyro_klmodes.engine.graphs.pointwise import has_known_layout, pointwise
from pyro_klmodes.engine.graphs.runs import run_through

__all__ = [
    "add_call",
    "add_constant",
    "append_call",
    "append_held",
    "constant",
    "evaluate",
    "infer",
    "outputs",
    "refresh",
    "same_layout",
    "val",
    "without_data",
]


def val(node: Node) -> Tensor:
    """A tensor without data of the shape, dtype and strides of a node's result."""
    return node.meta["val"]


def constant(graph: Graph, node: Node) -> Tensor:
    """The tensor that a ``get_attr`` node stands for."""
    owner: Any = graph.owning_module
    for part in str(node.target).split("."):
        owner = getattr(owner, part)
    return owner


def outputs(graph: Graph) -> list[Any]:
    """What a graph returns: nodes, for all that this package makes."""
    (node,) = graph.find_nodes(op="output")
    found = node.args[0]
    return list(found) if isinstance(found, tuple | list) else [found]


def refresh(graph: GraphModule, examples: Sequence[Tensor]) -> None:
    """Run a graph on copies of examples and write down what every node's result is like.

    The random generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for done in run_through(graph, [x.detach().clone() for x in examples]):
            if done.node.op != "output":
                done.node.meta["val"] = without_data(done.value)


def without_data(value: Any) -> Any:
    """What a result is like: tensors on no device, in tuples and lists as they are."""
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, tuple):
        return tuple(without_data(x) for x in value)
    return [without_data(x) for x in value] if isinstance(value, list) else value


def infer(graph: GraphModule, examples: Sequence[Tensor]) -> None:
    """Write down what every node's result is like without computing it, or drawing anything.

    Raises:
        NotImplementedError, RuntimeError: if that takes numbers.
    """
    inputs = iter(examples)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            node.meta["val"] = without_data(next(inputs))
        elif node.op == "get_attr":
            node.meta["val"] = without_data(constant(graph.graph, node))
        elif node.op == "call_function":
            node.meta["val"] = evaluate(node.target, node.args, node.kwargs)


def same_layout(a: Any, b: Any) -> bool:
    """Whether two results are tensors of equal shape, dtype and strides, where these matter."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.numel() == 0:
        return True
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return all(s == t for size, s, t in strides if size != 1)


def append_call(graph: Graph, target: Target, *args: Any, **kwargs: Any) -> Node:
    """Insert a call where the graph grows; what its result is like is computed without data."""
    result = evaluate(target, args, kwargs)  # raises before anything has changed
    node = graph.create_node("call_function", target, args, kwargs)
    node.meta["val"] = result
    return node


def add_call(graph: Graph, before: Node, target: Target, *args: Any, **kwargs: Any) -> Node:
    """Insert a call before a node; what its result is like is computed without data."""
    with graph.inserting_before(before):
        return append_call(graph, target, *args, **kwargs)


def evaluate(target: Any, args: Any, kwargs: Any) -> Any:
    """The result of a call on tensors without data."""
    given, named = map_arg(args, val), map_arg(kwargs, val)
    with torch.no_grad():
        if has_known_layout(target, given, named):
            return without_data(pointwise(target, given, named))
        return target(*given, **named)


def add_constant(graph: Graph, before: Node, value: Tensor) -> Node:
    """Insert a constant tensor before a node."""
    owner: Any = graph.owning_module
    taken = {n.target for n in graph.nodes if n.op == "get_attr"}
    number = len(taken)
    while f"_constant{number}" in taken or hasattr(owner, f"_constant{number}"):
        number += 1
    owner.register_buffer(f"_constant{number}", value)
    with graph.inserting_before(before):
        node = graph.get_attr(f"_constant{number}")
    node.meta["val"] = without_data(value)
    return node


def append_held(graph: Graph, held: dict[str, Any], value: Tensor) -> Node:
    """Append a constant to a graph that has no module yet.

    Args:
        graph: what is appended to.
        held: the constants of its module by name; this one is added.
        value: the constant.
    """
    name = f"_held{len(held)}"
    held[name] = value
    node = graph.get_attr(name)
    node.meta["val"] = without_data(value)
    return node
