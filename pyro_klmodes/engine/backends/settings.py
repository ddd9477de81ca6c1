"""How torch's compiler is set while it compiles for us; afterwards everything is as before."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from pyro_klmodes.engine.backends.compiler import find_compiler
from pyro_klmodes.engine.backends.errors import CompileFailed, NoCompiler
from pyro_klmodes.engine.backends.folders import private_folder

__all__ = ["SETTINGS", "compiling"]

# Torch's settings are for one thread, but the environment and its registered generators are not.
_LOCK = threading.Lock()

#: Fast, and the same arithmetic as the graph: infinities and NaN keep their meaning, products and
#: sums are not contracted, and nothing depends on timings.
SETTINGS: dict[str, Any] = {
    "compile_threads": 1,  # in this process; no pool of workers stays behind
    "freezing": False,
    "max_autotune": False,
    "size_asserts": False,  # see ``same_layout``
    "nan_asserts": False,
    "cpp.enable_unsafe_math_opt_flag": False,
    "cpp.enable_floating_point_contract_flag": "off",
    "cpp.enable_kernel_profile": False,
    "cpp.dynamic_threads": False,
    "cpp.enable_tiling_heuristics": False,
    "trace.enabled": False,
}

_COMPILER = "torch._inductor.compile_fx"
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
#: what torch writes to the environment when it compiles
_VARIABLES = (_FOLDER, "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR")


@contextmanager
def compiling(files: Path | None, more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Set torch's compiler for one compilation, in this thread and with nobody else compiling.

    Args:
        files: folder of this user's for what the compiler keeps; None if there is none. A folder
            that the user set by ``TORCHINDUCTOR_CACHE_DIR`` is used instead.
        more: settings beyond the usual ones.

    Raises:
        NoCompiler: if there is no C++ compiler.
        CompileFailed: for whatever torch or the compiler raise.
    """
    command, reason = find_compiler()
    if reason is not None:
        raise NoCompiler(f"{reason}; install g++ or clang++, or set CXX to the compiler")
    chosen = {**SETTINGS, "cpp.cxx": (command,), **(more or {})}
    with ExitStack() as stack:
        stack.enter_context(_LOCK)
        stack.enter_context(_files_in(files))
        stack.enter_context(_quiet())
        try:
            _import_compiler()
            from torch._functorch import config as functorch
            from torch._inductor import config as inductor

            chosen["cpp_cache_precompile_headers"] = headers = _headers_are_ours()
            chosen["aot_inductor.precompile_headers"] = headers
            stack.enter_context(inductor.patch(chosen))
            stack.enter_context(functorch.patch(enable_autograd_cache=False))
            stack.enter_context(torch.no_grad())
            yield
        except Exception as error:  # torch raises errors of any class here
            raise CompileFailed(f"the graph was not compiled: {_first_line(error)}") from error


def _import_compiler() -> None:
    """Seconds of imports, which nobody pays for who only runs compiled programs.

    Torch itself uses what it has deprecated; where warnings are errors, that would stop its import.
    """
    if _COMPILER in sys.modules:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module(_COMPILER)
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning):  # another thread's, perhaps
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch tells how it does what it does; what it cannot do, it raises."""
    logger = logging.getLogger("torch._inductor")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _files_in(folder: Path | None) -> Iterator[None]:
    """Torch looks for the place of its files in the environment, and writes there itself.

    It does so, with its usual place, as soon as anything is traced; so that place is nobody's wish.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    before = {name: os.environ.get(name) for name in _VARIABLES}
    wished = before[_FOLDER] not in (None, default_cache_dir())
    with ExitStack() as stack:
        if not wished:
            ours = None if folder is None else private_folder(folder / "inductor")
            if ours is None:
                ours = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyro_klmodes")))
            os.environ[_FOLDER] = str(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _headers_are_ours() -> bool:
    """Whether the compiler may use precompiled headers: their place is known to everybody."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return private_folder(Path(default_cache_dir())) is not None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    of_compiler = [line for line in lines if " error: " in line]
    return (of_compiler or lines or [type(error).__name__])[0]
