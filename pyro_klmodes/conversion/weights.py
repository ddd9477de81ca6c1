"""What the weights of the draws say: the shape of their tail, and which draws to repeat."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pyro_klmodes.conversion.blocks import Block
from pyro_klmodes.errors import InvalidArgument, KLModesWarning
from pyro_klmodes.weights import pareto_khat, pareto_smooth

__all__ = ["Tail", "resampled"]

# Above it a weighted mean of these draws cannot be trusted, however many there are (Vehtari et
# al., 2024).
_TRUSTED_KHAT = 0.7

_CELLS = 128


class Tail:
    """The largest log-weights of every cell, which are all that k-hat needs.

    Args:
        count: number of draws that will come.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        # pareto_khat looks at the ceil(min(S/5, 3 sqrt(S))) largest and the one below.
        self._keep = int(min(count, 3 * count**0.5 + 2))
        self._largest: Tensor | None = None
        self._shape: torch.Size = torch.Size()

    def add(self, log_w: Tensor) -> None:  # (s, *cells)
        """Take in the next draws."""
        self._shape = log_w.shape[1:]
        rows = log_w.reshape(len(log_w), -1)
        if self._largest is not None:
            rows = torch.cat([self._largest, rows])
        self._largest = rows.topk(min(self._keep, len(rows)), dim=0).values

    def khat(self) -> Tensor:  # (*cells)
        """The k-hat of every cell, as if all weights were at hand."""
        assert self._largest is not None
        missing = self.count - len(self._largest)
        found = []
        for cells in self._largest.split(_CELLS, dim=1):
            rest = cells[-1:].expand(missing, -1)  # below the tail their size does not matter
            found.append(pareto_khat(torch.cat([cells, rest])))
        return torch.cat(found).reshape(self._shape)


def resampled(
    blocks: list[Block],
    axes: Mapping[str, Mapping[str, int]],  # {site: {plate: axis from the right}}
    seed: int,
) -> tuple[list[Block], Tensor]:  # khat: (*cells)
    r"""Repeat draws in proportion to their Pareto-smoothed weights, as many as there were.

    With replacement, by systematic resampling: a draw of weight w is there floor(S w) or
    ceil(S w) times, S w times on average. Copies stand side by side, so that an effective sample
    size of the chain sees them. Cells of local plates are resampled apart, each by its own weights.

    Returns:
        The blocks with other draws in them, and k-hat of the draws there were.

    Raises:
        InvalidArgument: if all weights of a cell are zero.

    Warns:
        KLModesWarning: if a k-hat is above 0.7.

    Source: Kitagawa (1996) for systematic resampling; Vehtari et al. (2024) for the smoothing.
    """
    found = [block.log_w for block in blocks]
    log_w = torch.cat([x for x in found if x is not None])
    if bool((log_w == -torch.inf).all(0).any()):
        raise InvalidArgument(
            "all weights are zero: the model has density zero at every draw of the guide, so there "
            "is nothing to resample. Check that the guide reaches the posterior, or take "
            "resample='none'."
        )
    smoothed, khat = pareto_smooth(log_w)
    if bool((khat[khat.isfinite()] > _TRUSTED_KHAT).any()):
        warnings.warn(
            f"k-hat is {float(khat[khat.isfinite()].max()):.2f}, above 0.7: resampling these draws "
            "does not give draws of the posterior. Improve the guide first.",
            KLModesWarning,
            stacklevel=3,
        )
    rows = _systematic(smoothed, seed)
    values = {n: torch.cat([b.values[n] for b in blocks]) for n in blocks[0].values}
    cells = blocks[0].cells
    values = {n: _gather(v, rows, cells, axes[n]) for n, v in values.items()}
    log_p = torch.cat([b.log_p for b in blocks if b.log_p is not None]).gather(0, rows)
    return list(_cut(blocks, values, log_p)), khat


def _systematic(log_w: Tensor, seed: int) -> Tensor:  # (S, *cells) -> (S, *cells), sorted
    count = len(log_w)
    cumulative = log_w.double().softmax(0).cumsum(0).movedim(0, -1).contiguous()
    cumulative = cumulative / cumulative[..., -1:]
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand((*cumulative.shape[:-1], 1), generator=generator, dtype=torch.float64)
    points = (torch.arange(count) + start) / count
    rows = torch.searchsorted(cumulative, points.to(cumulative.device).contiguous())
    return rows.clamp(max=count - 1).movedim(-1, 0)


def _gather(value: Tensor, rows: Tensor, cells: tuple[str, ...], axes: Mapping[str, int]) -> Tensor:
    """Rows of a site's draws, its own for every cell."""
    shape = [1] * value.dim()
    shape[0] = len(rows)
    for axis, plate in enumerate(cells, start=1):
        shape[axes[plate]] = rows.shape[axis]
    return value.gather(0, rows.reshape(shape).expand(value.shape))


def _cut(blocks: Iterable[Block], values: Mapping[str, Tensor], log_p: Tensor) -> Iterator[Block]:
    start = 0
    for block in blocks:
        part = slice(start, start + len(block))
        start += len(block)
        yield replace(
            block,
            values={n: v[part] for n, v in values.items()},
            log_p=log_p[part],
            log_q=None,  # they are not draws of the guide any more
        )
