"""A graph in the form the back ends take: bare, and with outputs that own their memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from pyro_klmodes.engine.backends.errors import CompileFailed
from pyro_klmodes.engine.backends.randomness import same_generator_after
from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.runs import result_of
from pyro_klmodes.errors import InvalidArgument

__all__ = ["Arranged", "arrange"]

_CLONE = torch.ops.aten.clone.default


class Arranged(NamedTuple):
    """A graph that a back end can take.

    Attributes:
        graph: without metadata of its tracing; its outputs share no memory with anything.
        results: what its outputs are for the examples.
        constants: the tensors that it holds, by name.
        in_place: ``{output: input}`` for outputs that go into inputs.
    """

    graph: GraphModule
    results: list[Tensor]
    constants: dict[str, Tensor]
    in_place: dict[int, int]

    @property
    def returned(self) -> list[int]:
        """The outputs that the program gives back."""
        return [i for i in range(len(self.results)) if i not in self.in_place]


def arrange(
    graph: GraphModule, examples: Sequence[Tensor], in_place: Mapping[int, int]
) -> Arranged:
    """Copy a graph, without what tracing left on its nodes, and run it once on the examples.

    Outputs that are inputs, constants, one another, or views of these are cloned.

    Args:
        graph: flat tensors in, one flat tuple of tensors out.
        examples: its inputs; not changed, and neither is the state of the random numbers.
        in_place: ``{output: input}`` for outputs that replace inputs.

    Raises:
        InvalidArgument: if ``in_place`` names what does not exist or does not fit.
        CompileFailed: if the graph is not of this form, or does not run.
    """
    bare = _bare(graph, len(examples))
    names = [str(node.target) for node in bare.graph.nodes if node.op == "get_attr"]
    constants = {name: attrgetter(name)(bare) for name in names}
    try:
        with torch.no_grad(), same_generator_after(bare):
            results = list(result_of(bare, examples))
    except Exception as error:  # whatever an operation raises for these examples
        raise CompileFailed(f"the graph does not run on its examples: {error}") from error
    _check(in_place, examples, results)
    _clone_shared(bare, results, [*examples, *constants.values()])
    return Arranged(bare, results, constants, dict(in_place))


def _bare(graph: GraphModule, inputs: int) -> GraphModule:
    # A new graph has the plain calling convention, whatever tracing gave to the old one.
    bare, new = Graph(), dict[Node, Node]()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            new[node] = bare.placeholder(f"input_{len(new)}")
            if len(new) > inputs:
                raise CompileFailed(f"the graph has more inputs than the {inputs} examples")
        elif node.op in ("call_function", "get_attr"):
            new[node] = bare.node_copy(node, new.__getitem__)
            new[node].meta.clear()
        elif node.op == "output":
            values = node.args[0]
            if not isinstance(values, list | tuple) or not all(isinstance(v, Node) for v in values):
                raise CompileFailed("the graph does not give one flat tuple of tensors")
            bare.output(tuple(new[v] for v in values))
        else:
            raise CompileFailed(f"the graph has the node '{node}' of the kind {node.op}")
    return module_of(graph, bare)


def _check(
    in_place: Mapping[int, int], examples: Sequence[Tensor], results: Sequence[Tensor]
) -> None:
    if len(set(in_place.values())) != len(in_place):
        raise InvalidArgument(f"in_place={dict(in_place)} has an input twice.")
    for i, j in in_place.items():
        if not (0 <= i < len(results) and 0 <= j < len(examples)):
            raise InvalidArgument(
                f"in_place={dict(in_place)} names output {i} and input {j}, but there are "
                f"{len(results)} outputs and {len(examples)} inputs."
            )
        if (results[i].shape, results[i].dtype) != (examples[j].shape, examples[j].dtype):
            raise InvalidArgument(
                f"in_place={dict(in_place)} puts output {i} of shape {tuple(results[i].shape)} and "
                f"{results[i].dtype} into input {j} of shape {tuple(examples[j].shape)} and "
                f"{examples[j].dtype}."
            )
        if [_memory(x) for x in examples].count(_memory(examples[j])) > 1:
            raise InvalidArgument(
                f"in_place={dict(in_place)} changes input {j}, which shares its memory with "
                "another input. Clone one of them."
            )


def _clone_shared(graph: GraphModule, results: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    taken = {_memory(x) for x in others}
    (output,) = [node for node in graph.graph.nodes if node.op == "output"]
    values = list(output.args[0])
    for i, result in enumerate(results):
        if _memory(result) in taken:
            with graph.graph.inserting_before(output):
                values[i] = graph.graph.call_function(_CLONE, (values[i],))
        taken.add(_memory(result))
    output.args = (tuple(values),)
    graph.recompile()


def _memory(x: Tensor) -> int:
    return x.untyped_storage()._cdata
