"""What must hold of a step that was written down, or made to hold, so that it stays right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.graphs.operations import (
    is_mutable,
    is_op,
    is_random_op,
    is_view_op,
    schema_of,
)
from pyro_klmodes.engine.graphs.parts import ancestors, placeholders
from pyro_klmodes.engine.parameters import Parameters

__all__ = ["Constant", "Pinned", "constants_of", "pinned_inputs", "poison_failures"]

_ATEN = torch.ops.aten
#: operations that raise errors, and give nothing that a graph would keep them for
_RAISES = (_ATEN._linalg_check_errors.default,)
_ASSERTS = (_ATEN._assert_async.default, _ATEN._assert_async.msg)


class Constant(NamedTuple):
    """A tensor that a graph holds, and how often it had been changed in place by then."""

    tensor: Tensor
    version: int | None
    name: str

    @property
    def why_stale(self) -> str | None:
        """What was done to it since, None if nothing."""
        if self.tensor.requires_grad:
            return f"{self.name}, which model or guide reads, is learned now"
        if self.version is not None and self.tensor._version != self.version:
            return f"{self.name}, which model or guide reads, was changed in place"
        return None


class Pinned(NamedTuple):
    """An input that decides shapes in a graph, which holds only as long as it is the same."""

    position: int
    value: Tensor
    why: str


def poison_failures(graph: GraphModule) -> None:
    """Have the first output be NaN where an operation would raise an error, in place.

    A decomposition of a matrix that has none raises in eager code. In a graph it would be a call
    that nobody uses the result of, and its garbage would go on.
    """
    (output,) = graph.graph.find_nodes(op="output")
    loss, *rest = output.args[0]
    for node in list(graph.graph.nodes):
        if not is_op(node, *_RAISES, *_ASSERTS):
            continue
        with graph.graph.inserting_before(output):
            call = graph.graph.call_function
            compare = _ATEN.eq.Scalar if is_op(node, *_RAISES) else _ATEN.ne.Scalar
            good = call(_ATEN.all.default, (call(compare, (node.args[0], 0)),))
            loss = call(_ATEN.where.ScalarOther, (good, loss, math.nan))
        graph.graph.erase_node(node)
    output.args = ((loss, *rest),)


def constants_of(graph: GraphModule, parameters: Parameters) -> tuple[Constant, ...]:
    """The tensors that a graph holds.

    Raises:
        CannotLift: if a parameter is among them, or something that outlives a step is changed.
    """
    found = []
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(graph, node.target)
            _refuse_parameter(tensor, parameters)
            version = None if tensor.is_inference() else tensor._version
            found.append(Constant(tensor, version, parameters.name_of(tensor)))
        written = next((r for r in _roots_of(node.args[0])), None) if is_mutable(node) else None
        if written is not None:
            what = "an argument or parameter"
            if written.op == "get_attr":
                what = parameters.name_of(getattr(graph, str(written.target)))
            raise CannotLift(
                f"a step changes {what} in place, as the running averages of a BatchNorm are, so "
                "the next one may be another function"
            )
    return tuple(found)


def _refuse_parameter(tensor: Tensor, parameters: Parameters) -> None:
    at = parameters.position(tensor)
    if at is None and not tensor.requires_grad:
        return
    name = parameters.name_of(tensor) if at is None else f"'{parameters.names[at]}'"
    raise CannotLift(
        f"parameter {name} reaches the loss by a way of its own (a copy of a module, a list of "
        "tensors, a parameter that the first step did not use), where it cannot be replaced"
    )


def _roots_of(node: object) -> Iterator[Node]:
    """The input or constant that something is, or is a view of."""
    while isinstance(node, Node):
        if node.op in ("get_attr", "placeholder"):
            yield node
        if not is_view_op(node) and not is_mutable(node):
            return
        node = node.args[0] if node.args else None


def pinned_inputs(graph: GraphModule, data: range, values: Sequence[Tensor]) -> tuple[Pinned, ...]:
    """Those of the data that decide shapes in a graph, by a boolean mask for instance.

    Args:
        graph: as it was written down.
        data: positions of the data among the inputs.
        values: of the data.

    Raises:
        CannotLift: if parameters or random numbers decide a shape.
    """
    inputs = placeholders(graph)
    pinned: dict[int, str] = {}
    for node in graph.graph.nodes:
        selectors = _selectors(node)
        if not selectors:
            continue
        why = f"a shape depends on values: {_spelled(node)}"
        before = ancestors(selectors)
        if any(is_random_op(n) for n in before):
            raise CannotLift(f"{why} of latents or random numbers")
        for i in (i for i, n in enumerate(inputs) if n in before):
            if i not in data:
                raise CannotLift(f"{why} of parameters or latents")
            pinned[i - data.start] = why
    return tuple(Pinned(i, values[i].clone(), why) for i, why in sorted(pinned.items()))


def _selectors(node: Node) -> list[Node]:
    """The tensors on whose values the shape of a result depends."""
    tags = getattr(node.target, "tags", ())
    if node.op != "call_function" or torch.Tag.dynamic_output_shape not in tags:
        return []
    if is_op(node, _ATEN.index.Tensor):
        indices: Any = node.args[1]
        found = [i for i in indices if isinstance(i, Node)]
        return [i for i in found if i.meta["val"].dtype in (torch.bool, torch.uint8)]
    if is_op(node, _ATEN.masked_select.default):
        return [n for n in node.args[1:] if isinstance(n, Node)]
    return list(node.all_input_nodes)


def _spelled(node: Node) -> str:
    if is_op(node, _ATEN.index.Tensor, _ATEN.masked_select.default):
        return "a boolean mask"
    return f"`{schema_of(node).name.split('::')[-1]}`"
