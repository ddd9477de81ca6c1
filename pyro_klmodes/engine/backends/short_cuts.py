"""The shortest way to call an operation: torch's own functions are quicker than ``torch.ops``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, BuiltinMethodType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.backends.randomness import same_generator_after
from pyro_klmodes.engine.graphs.operations import is_random_op
from pyro_klmodes.engine.graphs.runs import run_through

__all__ = ["short_cuts"]

_QUICK = (BuiltinFunctionType, BuiltinMethodType, MethodDescriptorType)
_PREFIXES = {"linalg_": torch.linalg, "special_": torch.special, "fft_": torch.fft}


def short_cuts(graph: GraphModule, examples: Sequence[Tensor]) -> dict[Node, Callable[..., Any]]:
    """What to call for every operation of a graph.

    ``torch.add`` finds its overload in half the time that ``torch.ops.aten.add.Tensor`` takes to
    check its arguments against the schema. It is taken only where, for the arguments in this graph,
    it gives the same bits, strides and sharing of memory; which overload it finds depends on the
    kinds of the arguments, which stay the same.

    Args:
        graph: that runs on these examples.
        examples: its inputs; not changed.
    """
    chosen: dict[Node, Callable[..., Any]] = {}
    with torch.no_grad(), same_generator_after(graph):
        for node, args, kwargs, value in run_through(graph, examples):
            if node.op == "call_function":
                chosen[node] = _shortest(node, args, kwargs, value)
    return chosen


def _shortest(
    node: Node, args: tuple[Any, ...], kwargs: Mapping[str, Any], expected: Any
) -> Callable[..., Any]:
    target: Any = node.target
    if not isinstance(target, OpOverload) or is_random_op(node) or target._schema.is_mutable:
        return target
    for candidate in _candidates(target):
        try:
            found = candidate(*args, **kwargs)
        except (TypeError, RuntimeError, ValueError, IndexError):
            continue  # it takes other arguments
        if _same(found, expected):
            return candidate
    return target


def _candidates(target: OpOverload) -> Iterator[Callable[..., Any]]:
    namespace, _, name = target._schema.name.partition("::")
    if namespace != "aten":
        return
    homes = [(torch, name), (torch.nn.functional, name), (torch.Tensor, name)]
    homes += [(m, name.removeprefix(p)) for p, m in _PREFIXES.items() if name.startswith(p)]
    for home, attribute in homes:
        function = getattr(home, attribute, None)
        if isinstance(function, _QUICK):
            yield function


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        layouts = [(x.shape, x.stride(), x.storage_offset(), x.dtype) for x in (a, b)]
        return layouts[0] == layouts[1] and torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def _bytes(x: Tensor) -> Tensor:
    # a single number is contiguous with any stride, and only a copy has stride one
    return x.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)
