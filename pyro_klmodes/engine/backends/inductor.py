"""The graph compiled in this process: kernels in C++, called from Python that torch writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.engine.backends.apart import compile_apart, may_compile_here
from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.forms import with_lifted_constants
from pyro_klmodes.engine.backends.program import Program
from pyro_klmodes.engine.backends.settings import compiling
from pyro_klmodes.engine.backends.short_loops import for_short_loops

__all__ = ["inductor"]

_Call = Callable[[list[Tensor]], Sequence[Tensor]]


def inductor(arranged: Arranged, examples: Sequence[Tensor], files: Path | None) -> Program:
    """Compile a graph with torch's inductor, without the guards of ``torch.compile``.

    In another thread than the main one, another process makes the kernels; here the program is
    finished when it is called for the first time.

    Args:
        arranged: the graph.
        examples: its inputs.
        files: folder of this user's for what the compiler keeps.

    Raises:
        NoCompiler, CompileFailed: if it cannot be compiled.
    """
    constants = [c.detach() for c in arranged.constants.values()]
    call: _Call | None = None
    owner: object = None
    if may_compile_here():
        call, owner = _compile(arranged, examples, files)
    else:
        compile_apart(_make_kernels, arranged, examples, files, Path())

    def finished(given: list[Tensor]) -> list[Tensor]:
        nonlocal call, owner
        if call is None:
            call, owner = _compile(arranged, given, files)
        return list(call([*given, *constants]))

    def program(given: list[Tensor]) -> list[Tensor]:
        if torch.is_grad_enabled():
            with torch.no_grad():
                return finished(given)
        return finished(given)

    return program


def _make_kernels(
    arranged: Arranged, examples: Sequence[Tensor], files: Path | None, to: Path
) -> Path:
    _compile(arranged, examples, files)
    return to


def _compile(
    arranged: Arranged, examples: Sequence[Tensor], files: Path | None
) -> tuple[_Call, object]:
    """What takes the list of inputs and constants and empties it, and what it must not outlive."""
    inputs = [x.detach() for x in (*examples, *arranged.constants.values())]
    innermost: list[Any] = []
    with compiling(files, for_short_loops(arranged.graph, examples)):
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def compile_inner(*args: Any, **kwargs: Any) -> Any:
            innermost.append(compile_fx_inner(*args, **kwargs))
            return innermost[-1]

        compile_fx(with_lifted_constants(arranged), inputs, inner_compile=compile_inner)
    # Around the compiled code torch puts a wrapper for aliases, mutations and gradients, which
    # costs as much as a small graph. Here outputs own their memory and no input has a gradient.
    (compiled,) = innermost
    return compiled.current_callable, compiled
