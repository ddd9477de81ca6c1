"""Why a graph is not compiled; whoever asked for it can go on with an interpreted one."""

from __future__ import annotations

from pyro_klmodes.errors import KLModesError

__all__ = ["CompileFailed", "NoCompiler"]


class NoCompiler(KLModesError):
    """There is no C++ compiler that works; the message says where it was looked for."""


class CompileFailed(KLModesError):
    """Torch or the C++ compiler refused the graph; the message has the first line of the cause."""
