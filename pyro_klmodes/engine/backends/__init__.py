"""Back ends: what runs a graph of tensor operations; they know nothing but torch."""

from pyro_klmodes.engine.backends.build import build
from pyro_klmodes.engine.backends.compiler import why_no_compiler
from pyro_klmodes.engine.backends.costs import compile_seconds, step_seconds
from pyro_klmodes.engine.backends.errors import CompileFailed, NoCompiler
from pyro_klmodes.engine.backends.many_steps import many_steps
from pyro_klmodes.engine.backends.program import Program, Tier, same_layout

__all__ = [
    "CompileFailed",
    "NoCompiler",
    "Program",
    "Tier",
    "build",
    "compile_seconds",
    "many_steps",
    "same_layout",
    "step_seconds",
    "why_no_compiler",
]
