"""Split a graph: into drawing random numbers and the rest, and into what is fixed and the rest."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_klmodes.engine.graphs.aliases import Aliases, is_filler, written_arguments
from pyro_klmodes.engine.graphs.operations import is_random_op
from pyro_klmodes.engine.graphs.parts import ancestors, copy_part, placeholders
from pyro_klmodes.engine.graphs.values import outputs
from pyro_klmodes.engine.graphs.worth import is_worth_keeping
from pyro_klmodes.errors import UnsupportedStructure

__all__ = [
    "Invariants",
    "drop_unused_inputs",
    "random_nodes",
    "split_invariant",
    "split_random",
    "used_inputs",
]


def random_nodes(graph: GraphModule) -> list[Node]:
    """The calls that consume random numbers, in order.

    Samplers and fillers in place; not the derivatives of samplers, which are deterministic.
    """
    return [n for n in graph.graph.nodes if is_random_op(n)]


def split_random(
    graph: GraphModule,  # as clean leaves it
) -> tuple[GraphModule, GraphModule]:
    """Split a graph into all its random draws, and a rest without randomness.

    Returns:
        The *prelude* takes the inputs of the graph and returns the draws that the rest uses. It
        has all random operations in their order, and what they depend on, so it consumes the
        generator as the graph does. The *body* takes the inputs and then the draws, and returns
        what the graph returns, to the bit.

    Raises:
        UnsupportedStructure: if something other than a random filler of a fresh tensor writes to
            memory, because then the order of the two parts would matter.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> graph = make_fx(lambda x: (x * torch.randn(3), x + torch.rand(())))(torch.ones(3))
        >>> prelude, body = split_random(graph)
        >>> random_nodes(body)
        []
        >>> x = torch.arange(3.0)
        >>> torch.manual_seed(0) and None
        >>> expected = graph(x)
        >>> torch.manual_seed(0) and None
        >>> [torch.equal(a, b) for a, b in zip(body(x, *prelude(x)), expected)]
        [True, True]
    """
    _refuse_writing(graph)
    inputs, random = placeholders(graph), random_nodes(graph)
    drawn = ancestors(random)
    results = [n for n in outputs(graph.graph) if isinstance(n, Node)]
    body = ancestors(results, {d for r in random for d in _values_of(r)})
    draws = [d for r in random for d in _values_of(r) if d in body]
    prelude = copy_part(graph, inputs=inputs, returned=draws, needed=drawn)
    rest = copy_part(graph, inputs=[*inputs, *draws], returned=outputs(graph.graph))
    return prelude, rest


def _refuse_writing(graph: GraphModule) -> None:
    aliases = Aliases(graph.graph)
    for node in graph.graph.nodes:
        for target in written_arguments(node):
            fresh = all(
                n.op == "call_function" for n in aliases.members(target)
            ) and aliases.is_settled(node)
            if not is_filler(node) or not fresh:
                raise UnsupportedStructure(
                    f"{node.target} writes to a tensor that outlives it or has other names: clean "
                    "the graph first, and do not change arguments or buffers in place in a model."
                )


def _values_of(node: Node) -> list[Node]:
    """The tensors that a random call gives: itself, or the parts of a tuple."""
    parts = [u for u in node.users if u.target is operator.getitem]
    return parts if parts else [node]


class Invariants(NamedTuple):
    """A graph in two parts, one of which needs to run only when its inputs change.

    Attributes:
        once: takes the fixed inputs, in increasing order of their positions.
        body: takes the inputs at ``kept``, then what ``once`` returns.
        fixed: positions, among the inputs of the whole, of the inputs of ``once``.
        kept: positions of the inputs that ``body`` still takes.
    """

    once: GraphModule
    body: GraphModule
    fixed: tuple[int, ...]
    kept: tuple[int, ...]


def split_invariant(
    graph: GraphModule,  # without random operations
    fixed: Collection[int],
    max_elements: int = 2**22,
) -> Invariants:
    """Take out what depends only on given inputs and on constants.

    Results are kept if that saves work: views are taken anew, cheap results that are larger than
    what they are computed from are computed anew.

    Args:
        graph: as ``clean`` leaves it.
        fixed: positions of the inputs that change rarely, such as data.
        max_elements: larger results are computed anew each time.
    """
    inputs = placeholders(graph)
    chosen = tuple(sorted(set(fixed)))
    leaves = {inputs[i] for i in chosen}
    invariant: set[Node] = set()
    for node in graph.graph.nodes:
        if node in leaves or (
            node.op == "call_function"
            and not is_random_op(node)
            and node.all_input_nodes
            and all(n in invariant or n.op == "get_attr" for n in node.all_input_nodes)
        ):
            invariant.add(node)
    returned = outputs(graph.graph)
    ready: list[Node] = []
    for node in _frontier(graph, invariant - leaves):
        ready.extend(n for n in _worthwhile(node, leaves, max_elements) if n not in ready)
    used = ancestors([n for n in returned if isinstance(n, Node)], ready)
    ready = [n for n in graph.graph.nodes if n in set(ready) & used]
    kept = tuple(i for i, n in enumerate(inputs) if n in used)
    once = copy_part(graph, inputs=[inputs[i] for i in chosen], returned=ready)
    body = copy_part(graph, inputs=[*(inputs[i] for i in kept), *ready], returned=returned)
    return Invariants(once, body, chosen, kept)


def _frontier(graph: GraphModule, invariant: set[Node]) -> list[Node]:
    """The invariant nodes that others use."""
    return [
        n for n in graph.graph.nodes if n in invariant and any(u not in invariant for u in n.users)
    ]


def _worthwhile(node: Node, leaves: set[Node], max_elements: int) -> list[Node]:
    """The node, if keeping it saves work, else what of it does."""
    found, left, seen = [], [node], set()
    while left:
        at = left.pop()
        if at in seen or at.op != "call_function":
            continue
        seen.add(at)
        if isinstance(at.meta["val"], Tensor) and is_worth_keeping(at, leaves, max_elements):
            found.append(at)
        else:
            left.extend(at.all_input_nodes)
    return found


def drop_unused_inputs(
    graph: GraphModule,
) -> tuple[GraphModule, tuple[int, ...]]:
    """The same graph without inputs that no output depends on, and the positions of the others."""
    inputs, kept = placeholders(graph), used_inputs(graph)
    part = copy_part(
        graph,
        inputs=[inputs[i] for i in kept],
        returned=outputs(graph.graph),
        needed=random_nodes(graph),
    )
    return part, kept


def used_inputs(graph: GraphModule) -> tuple[int, ...]:
    """The positions of the inputs that an output or a draw depends on."""
    returned = [n for n in outputs(graph.graph) if isinstance(n, Node)]
    needed = ancestors([*returned, *random_nodes(graph)])
    return tuple(i for i, n in enumerate(placeholders(graph)) if n in needed)
