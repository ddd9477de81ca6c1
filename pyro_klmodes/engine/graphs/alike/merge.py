"""Do at once what is done to many rows of the same tensors, level by level of a graph.

A model that loops over time or groups in Python gives the same few operations for every turn of
the loop. Operations at the same distance from the inputs cannot depend on each other; those of
them that are alike, on rows of the same tensors, are one operation on many rows, whose results are
rows again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.graphs.alike.batched import can_be_batched, on_rows
from pyro_klmodes.engine.graphs.alike.rows import FEWEST, Row, source_of, take
from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.operations import is_mutable, is_random_op
from pyro_klmodes.engine.graphs.parts import placeholders
from pyro_klmodes.engine.graphs.values import (
    append_call,
    append_held,
    constant,
    outputs,
    val,
)

__all__ = ["merge_alike"]

aten = torch.ops.aten
_LARGEST = 1024  # elements of a row: larger ones keep a processor busy by themselves


def merge_alike(graph: GraphModule) -> GraphModule:
    """A graph that does at once what is alike; the same one if nothing is.

    Values are the same up to the last bit, which may differ between one number and many. A graph
    that draws or writes to memory is left as it is.

    Args:
        graph: with shapes known, as ``refresh`` leaves it; not changed.

    Example:
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> from pyro_klmodes.engine.graphs.values import refresh
        >>> def loop(x, y):
        ...     return (torch.stack([torch.exp(x[t]) * y for t in range(20)]),)
        >>> example = [torch.ones(20), torch.ones(3)]
        >>> graph = make_fx(loop)(*example)
        >>> refresh(graph, example)
        >>> count = lambda g: sum(n.target is torch.ops.aten.exp.default for n in g.graph.nodes)
        >>> count(graph), count(merge_alike(graph))
        (20, 1)
    """
    if any(is_mutable(n) or is_random_op(n) for n in graph.graph.nodes) or not _may_merge(graph):
        return graph
    merging = _Merging(graph)
    for nodes in _levels(graph):
        merging.add(nodes)
    return merging.finished() if merging.merged else graph


def _may_merge(graph: GraphModule) -> bool:
    """Whether any level has enough calls on rows that are alike at first sight."""
    for nodes in _levels(graph):
        seen = Counter(
            (node.target, val(node).shape)
            for node in nodes
            if can_be_batched(node) and any(source_of(x) for x in node.all_input_nodes)
        )
        if max(seen.values(), default=0) >= FEWEST:
            return True
    return False


def _levels(graph: GraphModule) -> Iterator[list[Node]]:
    """All nodes but the output, sorted by their distance from the inputs."""
    level: dict[Node, int] = {}
    found: dict[int, list[Node]] = defaultdict(list)
    for node in graph.graph.nodes:
        if node.op != "output":
            level[node] = 1 + max((level[n] for n in node.all_input_nodes), default=-1)
            found[level[node]].append(node)
    for i in sorted(found):
        yield found[i]


class _Merging:
    """The new graph while it is made."""

    def __init__(self, old: GraphModule) -> None:
        self._old = old
        self._new = Graph()
        self._held: dict[str, Any] = {}  # constants of the new graph
        self._made: dict[Node, Node] = {}  # from old nodes to new ones
        self._rows: dict[Node, Row] = {}  # or to rows of new ones
        self._views: dict[tuple[Node, tuple[int, ...]], Node] = {}
        self._call = partial(append_call, self._new)
        self._constant = partial(append_held, self._new, self._held)
        self.merged = False
        for node in placeholders(old):
            self._made[node] = self._new.node_copy(node)
            self._made[node].meta = dict(node.meta)

    def add(self, nodes: Sequence[Node]) -> None:
        """The nodes of a level, what they need being there."""
        alike: dict[Any, list[Node]] = defaultdict(list)
        for node in nodes:
            alike[self._key(node) or node].append(node)
        for group in alike.values():
            if len(group) >= FEWEST and self._merge(group):
                self.merged = True
            else:
                for node in group:
                    self._copy(node)

    def finished(self) -> GraphModule:
        """The graph."""
        results = outputs(self._old.graph)
        self._new.output(tuple(self._single(n) if isinstance(n, Node) else n for n in results))
        return module_of(self._held, self._new)

    def _key(self, node: Node) -> Any:
        """What nodes that are alike have in common; None for one that nothing is like."""
        if not can_be_batched(node) or val(node).numel() > _LARGEST:
            return None
        parts: list[Any] = []
        for x in node.args:
            if isinstance(x, Node):
                row = self._row(x)
                parts.append(x if row is None else (row.batch, val(x).shape))
            else:
                parts.append(repr(x))
        if not any(isinstance(part, tuple) for part in parts):
            return None
        return node.target, tuple(parts), repr(node.kwargs), val(node).shape, val(node).dtype

    def _merge(self, group: list[Node]) -> bool:
        """Make one call for all, if that can be."""
        places = range(len(group[0].args))
        columns = [self._column(group, i) for i in places]
        differing = [i for i in places if len({row.at for row in columns[i]}) > 1]
        if not differing:
            return False
        # in the order of the first rows that differ, so that these are taken by a slice
        order = sorted(range(len(group)), key=lambda k: columns[differing[0]][k].at)
        args: list[Any] = list(group[0].args)
        for i in places:
            if i in differing:
                indices = [columns[i][k].at for k in order]
                args[i] = take(self._call, self._constant, columns[i][0].batch, indices)
            else:
                args[i] = map_arg(args[i], self._single)
        batch = on_rows(self._call, group[0], args, [i in differing for i in places])
        like = val(group[0])
        if batch is None or val(batch).shape != (len(group), *like.shape):
            return False
        if val(batch).dtype != like.dtype:
            return False
        self._rows.update({group[k]: Row(batch, at) for at, k in enumerate(order)})
        return True

    def _column(self, group: Sequence[Node], i: int) -> list[Row]:
        """The rows that the nodes of a group take as one of their arguments, if these are rows."""
        found = [self._row(x) for x in (node.args[i] for node in group) if isinstance(x, Node)]
        return [row for row in found if row is not None]

    def _row(self, node: Node) -> Row | None:
        """Of what a node is a row, in the new graph."""
        if node not in self._rows:
            source = source_of(node)
            if source is None:
                return None
            self._rows[node] = Row(self._viewed(source.base, source.shape), source.at)
        return self._rows[node]

    def _viewed(self, base: Node, shape: tuple[int, ...]) -> Node:
        """A tensor whose rows have this shape."""
        at = self._single(base)
        if tuple(val(at).shape[1:]) == shape:
            return at
        if (at, shape) not in self._views:
            size = int(torch.Size(shape).numel())
            sizes = [len(val(at)) // size, *shape]
            self._views[at, shape] = self._call(aten.view.default, at, sizes)
        return self._views[at, shape]

    def _single(self, node: Node) -> Node:
        """The new node for an old one."""
        if node not in self._made:
            batch, index = self._rows[node]
            self._made[node] = self._call(aten.select.int, batch, 0, index)
        return self._made[node]

    def _copy(self, node: Node) -> None:
        if node.op == "placeholder" or self._row(node) is not None:
            return
        if node.op == "get_attr":
            self._made[node] = self._constant(constant(self._old.graph, node))
            return
        self._made[node] = self._new.node_copy(node, self._single)
        self._made[node].meta = dict(node.meta)
