"""The graph as a Python function: one line per operation, and nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pyro_klmodes.engine.backends.arrange import Arranged
from pyro_klmodes.engine.backends.program import Program
from pyro_klmodes.engine.backends.short_cuts import short_cuts
from pyro_klmodes.engine.graphs.liveness import last_used_by
from pyro_klmodes.engine.graphs.parts import placeholders

__all__ = ["interpreted"]


def interpreted(arranged: Arranged, examples: Sequence[Tensor]) -> Program:
    """Write the graph as Python, with every operation called by the shortest way to it.

    Args:
        arranged: the graph.
        examples: its inputs.
    """
    scope: dict[str, Any] = {}
    source = "\n    ".join(["def program(inputs):", *_lines(arranged, examples, scope)])
    exec(compile(source, "<graph>", "exec"), scope)
    run: Program = scope["program"]

    def program(inputs: list[Tensor]) -> list[Tensor]:
        if torch.is_grad_enabled():
            with torch.no_grad():
                return run(inputs)
        return run(inputs)

    return program


def _lines(arranged: Arranged, examples: Sequence[Tensor], scope: dict[str, Any]) -> list[str]:
    """The body of the function; the functions and constants it names go to ``scope``."""
    nodes = list(arranged.graph.graph.nodes)
    functions, done = short_cuts(arranged.graph, examples), last_used_by(arranged.graph.graph)
    names = {node: f"v{i}" for i, node in enumerate(nodes)}
    inputs = [names[node] for node in placeholders(arranged.graph)]
    lines = [f"{', '.join(inputs)}, = inputs"] if inputs else []

    def write(value: Any) -> str:
        if isinstance(value, Node):
            return names[value]
        if isinstance(value, tuple):
            return f"({''.join(f'{write(v)}, ' for v in value)})"
        if isinstance(value, list):
            return f"[{', '.join(write(v) for v in value)}]"
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        name = f"k{len(scope)}"
        scope[name] = value
        return name

    for node in nodes:
        if node.op == "get_attr":
            names[node] = write(arranged.constants[str(node.target)])
        elif node.op == "call_function" and node.target is operator.getitem:
            lines.append(f"{names[node]} = {write(node.args[0])}[{write(node.args[1])}]")
        elif node.op == "call_function":
            given = [write(a) for a in node.args]
            given += [f"{key}={write(value)}" for key, value in node.kwargs.items()]
            lines.append(f"{names[node]} = {write(functions[node])}({', '.join(given)})")
        elif node.op == "output":
            values = node.args[0]
            lines += [
                f"{inputs[j]}.copy_({write(values[i])})" for i, j in arranged.in_place.items()
            ]
            lines.append(f"return {write([values[i] for i in arranged.returned])}")
        # What nothing needs any longer is freed; inputs belong to the caller anyway.
        freed = [names[n] for n in done[node] if n.op == "call_function"]
        if freed and node.op != "output":
            lines.append(f"del {', '.join(freed)}")
    return lines
