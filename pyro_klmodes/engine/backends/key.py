"""What decides the machine code of a graph, in one number."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from pyro_klmodes.engine.backends.arrange import Arranged

__all__ = ["key_of"]


def key_of(arranged: Arranged, examples: Sequence[Tensor], settings: object) -> str:
    """A SHA-256 over everything that a compiled package depends on.

    That is the graph with the bytes of its constants, the layouts of inputs and outputs, what goes
    in place, the settings of the compiler, torch, the processor with its instruction sets, and the
    number of threads, which torch compiles in.

    Args:
        arranged: the graph.
        examples: its inputs.
        settings: of the compiler; anything whose ``repr`` says it all.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    add(settings, torch.__version__, torch.version.git_version, torch.get_num_threads())
    add(platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability(), _flags())
    add("inputs", *map(_layout, examples))
    add("outputs", *map(_layout, arranged.results), sorted(arranged.in_place.items()))
    numbers: dict[Node, _Number] = {}
    for i, node in enumerate(arranged.graph.graph.nodes):
        numbers[node] = _Number(i)
        given = map_arg((node.args, node.kwargs), numbers.__getitem__)
        # attributes are told apart by what they hold, below
        add(node.op, "" if node.op in ("placeholder", "get_attr") else str(node.target), given)
        if node.op == "get_attr":
            constant = arranged.constants[str(node.target)]
            add(_layout(constant))
            # a single number is contiguous with any stride, and only a copy has stride one
            flat = constant.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Number(int):
    """A node's place, which is not mistaken for an argument that is a number."""

    def __repr__(self) -> str:
        return f"node {int(self)}"


def _layout(x: Tensor) -> tuple[Any, ...]:
    return tuple(x.shape), x.stride(), str(x.dtype), str(x.device)


def _flags() -> str:
    """The processor's instruction sets, where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    told = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return " ".join(sorted(told[0].split())) if told else platform.processor()
