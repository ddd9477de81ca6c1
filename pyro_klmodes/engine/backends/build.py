"""From a graph to something that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.backends.ahead import ahead_of_time
from pyro_klmodes.engine.backends.arrange import arrange
from pyro_klmodes.engine.backends.folders import cache_folder
from pyro_klmodes.engine.backends.inductor import inductor
from pyro_klmodes.engine.backends.interpreted import interpreted
from pyro_klmodes.engine.backends.program import Program, Tier
from pyro_klmodes.engine.backends.rewrites import rewrite

__all__ = ["build"]


def build(
    graph: GraphModule,
    examples: Sequence[Tensor],
    tier: Tier,
    cache: Path | None = None,
    *,
    in_place: Mapping[int, int] | None = None,
) -> Program:
    r"""Make a program of a graph.

    Args:
        graph: flat tensors in, one flat tuple of tensors out; left as it is.
        examples: inputs of the shapes, strides and dtypes that the program will be called with.
            Compiled programs do not check them, see ``same_layout``.
        tier: ``"graph"`` is Python that calls one operation after the other and is there at once;
            ``"inductor"`` is compiled in this process; ``"aot"`` is compiled to a library, which
            takes longest to make and least to call, and is kept for later processes.
        cache: folder of the kept libraries, instead of the one that the environment variable
            ``PYRO_KLMODES_CACHE`` names, or ``pyro_klmodes/engine`` in the user's cache folder. It
            is used only if it is the user's and nobody else can write to it.
        in_place: ``{output: input}`` for outputs that replace inputs: the program writes them there
            and does not return them. A state that is updated in place costs no memory per step.

    Raises:
        InvalidArgument: if ``in_place`` does not fit the graph.
        NoCompiler: if a compiled tier is asked for, there is no C++ compiler, and nothing is kept.
        CompileFailed: if the graph is not of this form, does not run, or cannot be compiled.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> x = torch.tensor([1.0, 2.0])
        >>> graph = make_fx(lambda x: (x.sum(), x + 1))(x)
        >>> build(graph, [x], "graph")([torch.tensor([3.0, 4.0])])
        [tensor(7.), tensor([4., 5.])]
        >>> build(graph, [x], "graph", in_place={1: 0})([x]), x
        ([tensor(3.)], tensor([2., 3.]))
    """
    arranged = arrange(graph, examples, in_place or {})
    if tier == "graph":
        return interpreted(arranged, examples)
    arranged = rewrite(arranged, examples)
    folder = cache_folder(cache)
    files = cache_folder() or folder
    if tier == "inductor":
        return inductor(arranged, examples, files)
    return ahead_of_time(arranged, examples, folder, files)
