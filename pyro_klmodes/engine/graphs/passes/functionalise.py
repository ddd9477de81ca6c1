"""Replace operations that write to intermediate results by ones that do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases, effects, is_filler, written_arguments
from pyro_klmodes.engine.graphs.layouts import with_layout_of
from pyro_klmodes.engine.graphs.operations import is_mutable, schema_of
from pyro_klmodes.engine.graphs.record import record
from pyro_klmodes.engine.graphs.values import add_call, outputs, refresh, same_layout, val

__all__ = ["functionalise"]


def functionalise(graph: GraphModule, examples: Sequence[Tensor]) -> GraphModule:
    """The same graph with nothing written to, except where that cannot be avoided.

    What stays are random fillers of fresh tensors (``normal_`` of an ``empty``), whose order is
    that of the generator, and effects that outlive a run: writing to an input or to a constant.

    Args:
        graph: changed in place where it can be.
        examples: inputs for tracing anew, which is needed where views of a tensor are written to.
    """
    _replace_simple(graph)
    hard = set(_left_over(graph)) - set(effects(graph.graph))
    if hard and not effects(graph.graph):
        graph.recompile()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            found = record(functionalize(graph, remove="mutations"), examples)
        return _with_layouts_of(graph, found, examples)
    return graph


def _with_layouts_of(
    graph: GraphModule, found: GraphModule, examples: Sequence[Tensor]
) -> GraphModule:
    """Give the outputs of a graph that was traced anew the strides that they had."""
    refresh(found, examples)
    (end,) = found.graph.find_nodes(op="output")
    results: list[Node | None] = []
    for old, new in zip(outputs(graph.graph), outputs(found.graph), strict=True):
        kept = same_layout(val(new), val(old))
        results.append(new if kept else with_layout_of(new, val(old), end))
    if None in results:
        return graph  # what writes stays, and whoever needs it otherwise will refuse
    end.args = (tuple(results),)
    found.recompile()
    return found


def _replace_simple(graph: GraphModule) -> None:
    """Exchange ``x.op_()`` for ``x.op()`` where no other name of the memory of x is read later."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not is_mutable(node) or is_filler(node):
            continue
        pure = _out_of_place(node)
        (target,) = list(written_arguments(node)) or (None,)
        if pure is None or target is None or not _is_private(graph, node, target):
            continue
        new = _pure_call(node, pure, val(target))
        if new is None:
            continue
        node.replace_all_uses_with(new)
        for user in _users_after(graph, node, target):
            user.replace_input_with(target, new)
        graph.graph.erase_node(node)


def _is_private(graph: GraphModule, node: Node, target: Node) -> bool:
    """Whether the memory written to belongs to the graph and is read later by no other name."""
    members = Aliases(graph.graph).members(target)
    if any(n.op in ("placeholder", "get_attr") for n in members):
        return False
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    earlier = [n for n in members if order[n] < order[node] and n is not target]
    read_later = any(order[u] > order[node] for n in earlier for u in n.users)
    return not read_later


def _pure_call(node: Node, pure: OpOverload, target: Tensor) -> Node | None:
    """The call that writes nothing, with a result of the dtype and strides of what was written to.

    None if it has another dtype: an operation in place casts to that of its target.
    """
    try:
        new = add_call(node.graph, node, pure, *node.args, **node.kwargs)
    except (RuntimeError, NotImplementedError):
        return None
    if same_layout(val(new), target):
        return new
    if val(new).dtype != target.dtype or val(new).shape != target.shape:
        return None
    return with_layout_of(new, target, node)


def _users_after(graph: GraphModule, node: Node, target: Node) -> list[Node]:
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    return [u for u in target.users if order[u] > order[node]]


def _out_of_place(node: Node) -> OpOverload | None:
    """The operation of the same arguments that writes nothing, if torch has it."""
    schema = schema_of(node)
    name = schema.name.split("::")[-1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    pure = getattr(packet, schema.overload_name or "default", None) if packet is not None else None
    if not isinstance(pure, OpOverload) or pure._schema.is_mutable:
        return None
    return pure


def _left_over(graph: GraphModule) -> list[Node]:
    """Calls that write to something that is read by another name, or to a view."""
    aliases = Aliases(graph.graph)
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    found = []
    for node in graph.graph.nodes:
        for target in written_arguments(node):
            earlier = [n for n in aliases.members(target) if order[n] < order[node]]
            later = any(order[u] > order[node] for n in earlier for u in n.users)
            if not is_filler(node) or later or len(earlier) > 1:
                found.append(node)
    return found
