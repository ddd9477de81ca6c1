"""The graph compiled to a library of its own, which another process can load."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from pyro_klmodes.engine.backends import store
from pyro_klmodes.engine.backends.apart import compile_apart, may_compile_here
from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.errors import CompileFailed
from pyro_klmodes.engine.backends.forms import empty_results, for_library
from pyro_klmodes.engine.backends.key import key_of
from pyro_klmodes.engine.backends.library import load
from pyro_klmodes.engine.backends.program import Program
from pyro_klmodes.engine.backends.settings import SETTINGS, compiling
from pyro_klmodes.engine.backends.short_loops import SHORT_LOOPS, for_short_loops
from pyro_klmodes.engine.backends.stack import temporaries_on_stack
from pyro_klmodes.engine.backends.step_loop import SOURCE

__all__ = ["ahead_of_time"]


def ahead_of_time(
    arranged: Arranged, examples: Sequence[Tensor], folder: Path | None, files: Path | None
) -> Program:
    """Load the graph's library from the folder, or compile it and keep it there.

    Loading takes milliseconds, and needs neither a compiler nor the compiling parts of torch.

    Args:
        arranged: the graph.
        examples: its inputs.
        folder: of this user's; None if there is none, so that nothing is kept.
        files: folder of this user's for what the compiler keeps.

    Raises:
        NoCompiler, CompileFailed: if it cannot be compiled.
    """
    key = key_of(arranged, examples, (SETTINGS, SOURCE, SHORT_LOOPS))
    kept = None if folder is None else store.find(folder, key)
    # what changes in place is the state of many steps
    loaded = partial(load, new=empty_results(arranged), for_steps=bool(arranged.in_place))
    program = None if kept is None else loaded(kept)
    if program is None:
        with tempfile.TemporaryDirectory(prefix="pyro_klmodes") as temporary:
            to = Path(temporary)
            if may_compile_here():
                library = _compile(arranged, examples, files, to)
            else:
                library = compile_apart(_compile, arranged, examples, files, to)
            program = loaded(library)  # it stays in memory when the file is gone
            if folder is not None:
                store.keep(folder, key, library)
    if program is None:
        raise CompileFailed("the compiled library cannot be loaded")
    return program


def _compile(arranged: Arranged, examples: Sequence[Tensor], files: Path | None, to: Path) -> Path:
    try:
        return _compile_once(arranged, examples, files, to, temporaries_on_stack)
    except CompileFailed:  # the younger generator of code has no answer for a few operations
        return _compile_once(arranged, examples, files, to, nullcontext)


def _compile_once(
    arranged: Arranged,
    examples: Sequence[Tensor],
    files: Path | None,
    to: Path,
    temporaries: Callable[[], AbstractContextManager[None]],
) -> Path:
    form = for_library(arranged)
    results = [make() for make in empty_results(arranged)]
    inputs = tuple(x.detach() for x in (*examples, *results))
    # Torch notes things in its dictionary of metadata; this one is thrown away.
    of_library = {"aot_inductor.output_path": str(to), "aot_inductor.metadata": {}}
    more = {**of_library, **for_short_loops(arranged.graph, examples)}
    with compiling(files, more), temporaries():
        from torch._inductor.compile_fx import compile_fx_aot, compile_fx_inner

        def compile_inner(graph: GraphModule, *args: Any, **kwargs: Any) -> Any:
            # The calling convention of tracing warns when torch copies it.
            graph.graph.set_codegen(CodeGen())
            return compile_fx_inner(graph, *args, **kwargs)

        compile_ahead: Any = compile_fx_aot
        return Path(str(compile_ahead(form, inputs, compile_inner)))
