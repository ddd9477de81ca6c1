"""A graph as a compiler wants it: what goes in place, where constants are, what comes back."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.graphs.parts import placeholders
from pyro_klmodes.engine.graphs.values import outputs

__all__ = ["empty_results", "for_library", "with_lifted_constants"]

_COPY = torch.ops.aten.copy_.default


def with_lifted_constants(arranged: Arranged) -> GraphModule:
    """The graph with its constants as further inputs and ``in_place`` as its last operations."""
    return _form(arranged, lift_constants=True, return_nothing=False)


def for_library(arranged: Arranged) -> GraphModule:
    """The graph with a further input for every output that it would return, and no output.

    A library that keeps its temporaries on the stack returns tensors that its next call
    overwrites; one that writes into memory of ours cannot.
    """
    return _form(arranged, lift_constants=False, return_nothing=True)


def empty_results(arranged: Arranged) -> list[partial[Tensor]]:
    """For every output that is returned, what makes memory for it."""
    return [_empty_like(arranged.results[i]) for i in arranged.returned]


def _form(arranged: Arranged, *, lift_constants: bool, return_nothing: bool) -> GraphModule:
    form, old = Graph(), arranged.graph.graph
    old_inputs = placeholders(arranged.graph)
    inputs = [form.placeholder(f"input_{i}") for i in range(len(old_inputs))]
    new: dict[Node, Node] = dict(zip(old_inputs, inputs, strict=True))
    places = {i: inputs[j] for i, j in arranged.in_place.items()}
    lifted: dict[Any, Node] = {}
    if lift_constants:
        names = enumerate(arranged.constants)
        lifted = {name: form.placeholder(f"constant_{i}") for i, name in names}
    if return_nothing:
        places |= {i: form.placeholder(f"result_{i}") for i in arranged.returned}
    for node in old.nodes:
        if node.op == "get_attr" and node.target in lifted:
            new[node] = lifted[node.target]
        elif node.op in ("get_attr", "call_function"):
            new[node] = form.node_copy(node, new.__getitem__)
    values = [new[v] for v in outputs(old)]
    for i, place in places.items():
        form.call_function(_COPY, (place, values[i]))
    form.output(tuple(v for i, v in enumerate(values) if i not in places))
    return GraphModule(arranged.graph, form)


def _empty_like(result: Tensor) -> partial[Tensor]:
    like = torch.empty_like(result)  # dense, in the order of the result's dimensions
    # Compiled code of torch itself gets its memory in this way, in a third of the time.
    quick: Any = getattr(torch._C._dynamo.guards, "_empty_strided_cpu", torch.empty_strided)
    if quick is torch.empty_strided:
        return partial(quick, tuple(like.shape), like.stride(), dtype=like.dtype)
    return partial(quick, tuple(like.shape), like.stride(), like.dtype)
