"""Sums of products of exponentials, as a back end of ``opt_einsum``: how enumerated sites go.

Source: Obermeyer, Bingham, Jankowiak, Pradhan, Chiu, Rush and Goodman (2019), Tensor variable
    elimination for plated factor graphs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pyro.ops.einsum.util import Tensordot
from torch import Tensor

__all__ = ["einsum", "tensordot", "transpose"]

#: how much larger than what it is made from and makes a product may be to be written down
_TIMES = 4
#: and how large it may be in any case
_SMALL = 2**12


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """``log sum exp(operand) exp(operand) ...`` for an equation as that of ``torch.einsum``.

    A product that is not much larger than its factors and its sum is written down, and summed by
    ``logsumexp``: which is exact however far apart the numbers are. Else, as with a long batch of
    hidden Markov chains of many states, the exponentials are multiplied as matrices, each operand
    relative to its largest number along what is summed over: states that are 700 nats below in
    every operand count as impossible.

    Example:
        >>> a, b = torch.tensor([0.0, -1000.0]), torch.tensor([-1000.0, 0.0])
        >>> round(einsum("k,k->", a, b).item(), 3)
        -999.307
    """
    inputs, output = equation.split("->")
    dims = inputs.split(",")
    sizes = {d: n for x, names in zip(operands, dims, strict=True) for d, n in _sizes(x, names)}
    summed = [d for d in sizes if d not in output]
    if not summed and len(operands) == 1:
        return operands[0].permute([dims[0].index(d) for d in output]).clone()
    product = math.prod(sizes.values())
    parts = sum(x.numel() for x in operands) + math.prod(sizes[d] for d in output)
    if not summed or product <= max(_TIMES * parts, _SMALL):
        return _written_down(operands, dims, output, summed)
    return _multiplied(operands, dims, output, sizes)


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The axes in another order."""
    return x.permute(*axes)


#: two operands, as ``numpy.tensordot``
tensordot = Tensordot(einsum)


def _sizes(x: Tensor, names: str) -> list[tuple[str, int]]:
    return list(zip(names, x.shape, strict=True))


def _written_down(
    operands: Sequence[Tensor], dims: Sequence[str], output: str, summed: Sequence[str]
) -> Tensor:
    order = [*output, *summed]
    total = sum(_along(x, names, order) for x, names in zip(operands, dims, strict=True))
    assert isinstance(total, Tensor)
    if not summed:
        return total
    dim = list(range(len(output), len(order)))
    impossible = total.detach().amax(dim, keepdim=True) == -math.inf
    # torch differentiates the logarithm of a sum of nothing but zeros to nan
    log = torch.logsumexp(total.masked_fill(impossible, 0.0), dim)
    return log.masked_fill(impossible.squeeze(dim), -math.inf)


def _multiplied(
    operands: Sequence[Tensor], dims: Sequence[str], output: str, sizes: Mapping[str, int]
) -> Tensor:
    letters = {d: chr(ord("a") + i) for i, d in enumerate(sizes)}
    terms = ",".join("".join(letters[d] for d in names) for names in dims)
    shift = torch.zeros((), dtype=operands[0].dtype, device=operands[0].device)
    factors = []
    for x, names in zip(operands, dims, strict=True):
        top = x.detach()
        inside = [i for i, d in enumerate(names) if d not in output]
        if inside:
            top = top.amax(inside, keepdim=True)
        top = top.clamp(min=torch.finfo(x.dtype).min)  # of states that are all impossible
        factors.append((x - top).exp())
        kept = "".join(d for d in names if d in output)
        shift = shift + _along(top.squeeze(inside) if inside else top, kept, list(output))
    whole = torch.einsum(f"{terms}->{''.join(letters[d] for d in output)}", factors)
    possible = whole > 0
    # no logarithm of zero, whose derivative times zero is no number
    log = torch.where(possible, whole, torch.ones_like(whole)).log()
    return shift + log.masked_fill(~possible, -math.inf)


def _along(x: Tensor, names: str, order: Sequence[str]) -> Tensor:
    """With its dimensions in an order in which it may lack some."""
    there = [d for d in order if d in names]
    moved = x.permute([names.index(d) for d in there])
    sizes = dict(_sizes(x, names))
    return moved.reshape([sizes.get(d, 1) for d in order])
