"""A compiled library in memory: one call, or many steps in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pyro_klmodes.engine.backends.program import Program
from pyro_klmodes.engine.backends.step_loop import StepLoop

__all__ = ["Library", "load"]


def load(path: Path, new: Sequence[partial[Tensor]], *, for_steps: bool) -> Program | None:
    """What a library computes; None if it cannot be loaded.

    Args:
        path: of the library, which may be gone afterwards.
        new: for every result, what makes memory for it; the library takes it after its inputs.
        for_steps: whether it is going to take many steps at once. Torch's own way of calling it is
            quicker for a single one; both would have the constants in memory twice.
    """
    loop = StepLoop.of(path) if for_steps else None
    if loop is not None:
        return Library(loop, new)
    try:
        run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    except RuntimeError:
        return None

    def program(inputs: list[Tensor]) -> list[Tensor]:
        results = [make() for make in new]
        run([*inputs, *results])
        return results

    return program


class Library:
    """A library that has the function for many steps.

    Args:
        loop: that function.
        new: for every result, what makes memory for it.
    """

    def __init__(self, loop: StepLoop, new: Sequence[partial[Tensor]]) -> None:
        self._loop, self._new = loop, new

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        """One step."""
        results = [make() for make in self._new]
        self._loop([*inputs, *results], [], [], 1)
        return results

    def many(
        self, inputs: Sequence[Tensor], columns: Mapping[int, Tensor], count: int
    ) -> list[Tensor]:  # each (count, *result)
        """Many steps, see ``many_steps``; tables have no gaps in memory."""
        rows = {i: torch.empty_like(column[0]) for i, column in columns.items()}
        given = [rows.get(i, x) for i, x in enumerate(inputs)]
        results = [make() for make in self._new]
        found = [
            torch.empty_strided((count, *x.shape), (x.numel(), *x.stride()), dtype=x.dtype)
            for x in results
        ]
        read = [(columns[i], row) for i, row in rows.items()]
        self._loop([*given, *results], read, list(zip(found, results, strict=True)), count)
        return found
