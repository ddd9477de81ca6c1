"""Compiling in a process of its own, for threads that must not compile in this one.

Torch puts the state of the random numbers back to what it was before it compiled; draws that the
main thread makes meanwhile would come again. It also changes ``nn.Module.__call__`` for all threads
while it traces.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.errors import CompileFailed
from pyro_klmodes.errors import KLModesError

__all__ = ["Compile", "compile_apart", "may_compile_here", "work"]

_WORKER = Path(__file__).with_name("worker.py")

#: Compiles a graph for its examples. The paths are where torch keeps its files, and a folder for
#: the result; it tells where in there that is.
Compile = Callable[[Arranged, Sequence[Tensor], Path | None, Path], Path]


class _Layout(NamedTuple):
    """What a compiler needs to know of a tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> _Layout:
        return cls(tuple(x.shape), x.stride(), x.dtype)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)


class _Task(NamedTuple):
    graph: GraphModule
    inputs: list[_Layout]
    results: list[_Layout]
    in_place: dict[int, int]
    files: Path | None
    to: Path
    compile: Compile
    threads: int
    default_dtype: torch.dtype


def may_compile_here() -> bool:
    """Whether nobody else draws or traces while this thread compiles: it is the main one."""
    return threading.current_thread() is threading.main_thread()


def compile_apart(
    compile_graph: Compile,
    arranged: Arranged,
    examples: Sequence[Tensor],
    files: Path | None,
    to: Path,
) -> Path:
    """Have another process call a function of this package.

    The values of the examples stay here; only their layouts are told.

    Args:
        compile_graph: the function.
        arranged: the graph.
        examples: its inputs.
        files: folder for what torch keeps.
        to: folder for the result.

    Raises:
        NoCompiler, CompileFailed: what the function raises there.
    """
    task = _Task(
        graph=arranged.graph,
        inputs=[_Layout.of(x) for x in examples],
        results=[_Layout.of(x) for x in arranged.results],
        in_place=arranged.in_place,
        files=files,
        to=to,
        compile=compile_graph,
        threads=torch.get_num_threads(),
        default_dtype=torch.get_default_dtype(),
    )
    command = [sys.executable, "-P", str(_WORKER)]
    done = subprocess.run(command, input=pickle.dumps(task), capture_output=True, check=False)
    if done.returncode != 0:
        raise CompileFailed(f"the compiling process stopped with status {done.returncode}")
    answer: Path | KLModesError = pickle.loads(done.stdout)
    if isinstance(answer, KLModesError):
        raise answer
    return answer


def work(task: _Task) -> Path | KLModesError:
    """What the other process does, and tells this one."""
    torch.set_num_threads(task.threads)
    torch.set_default_dtype(task.default_dtype)
    constants = dict(task.graph.named_buffers())
    results = [layout.empty() for layout in task.results]
    arranged = Arranged(task.graph, results, constants, task.in_place)
    examples = [layout.empty() for layout in task.inputs]
    try:
        return task.compile(arranged, examples, task.files, task.to)
    except KLModesError as error:
        return type(error)(str(error))  # without the cause, which may not be told
