"""Many calls of a program, with what changes from call to call in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_klmodes.engine.backends.library import Library
from pyro_klmodes.engine.backends.program import Program

__all__ = ["many_steps"]


def many_steps(
    program: Program,
    inputs: Sequence[Tensor],
    columns: Mapping[int, Tensor],  # each (count, *input)
    count: int,
) -> list[Tensor]:  # each (count, *result)
    """Call a program again and again.

    Args:
        program: any, which may change some of its inputs in place.
        inputs: of all calls.
        columns: by position, what takes the place of an input: one row per call, each without gaps
            in memory when the program is called.
        count: how many calls, at least one.

    Example:
        >>> import torch
        >>> def program(inputs):
        ...     total, x = inputs
        ...     return [total.add_(x).clone()]
        >>> many_steps(program, [torch.zeros(()), torch.ones(())], {1: torch.arange(4.0)}, 4)
        [tensor([0., 1., 3., 6.])]
    """
    dense = {i: column.contiguous() for i, column in columns.items()}
    if isinstance(program, Library):
        return program.many(inputs, dense, count)
    rows = [(i, column.unbind(0)) for i, column in dense.items()]
    given, found = list(inputs), []
    for k in range(count):
        for i, column in rows:
            given[i] = column[k]
        found.append(program(given))
    return [torch.stack(results) for results in zip(*found, strict=True)]
