"""One run's terms, and their sums over everything but particles and local cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from pyro_klmodes.tracing.local_structure import LocalStructure
from pyro_klmodes.tracing.shares import Shares
from pyro_klmodes.tracing.terms import Term

__all__ = ["Cells", "Run", "to_cells"]


@dataclass(frozen=True)
class Run:
    """The terms of one run, vectorised over particles or of a single one."""

    p: list[Term]
    q: list[Term]
    values: Mapping[str, Tensor]  # (K, *site_shape), or (1, *site_shape)
    sources: tuple[str, ...]
    indices: Mapping[str, Tensor]
    leaves: tuple[tuple[Tensor, Tensor], ...] = ()
    shares: Shares | None = None


@dataclass(frozen=True)
class Cells:
    """How terms are reduced to particles and local cells.

    Attributes:
        structure: what is local.
        particle_dim: the batch dimension of the particles, None for single runs.
    """

    structure: LocalStructure
    particle_dim: int | None

    def empty(self, run: Run) -> Tensor:  # (1, *local)
        """Zeros, one for every cell."""
        sizes = [
            max(
                (t.log_prob.shape[d] for t in (*run.p, *run.q) if t.log_prob.dim() >= -d), default=1
            )
            for d in self.structure.plates.values()
        ]
        return (run.p or run.q)[0].log_prob.new_zeros((1, *sizes))

    def weighed(self, terms: Sequence[Term], zero: Tensor) -> Tensor:  # (particles, *local)
        """The sum of terms with the scales that stay inside of the weights."""
        return self.sum([self.structure.weighed(t, t.log_prob) for t in terms], zero)

    def sum(self, parts: Sequence[Tensor], zero: Tensor) -> Tensor:  # (particles, *local)
        """The sum of log-probabilities, zeros if there are none."""
        dims = list(self.structure.plates.values())
        if not parts:
            return zero
        return reduce(torch.add, (to_cells(x, self.particle_dim, dims) for x in parts))


def to_cells(
    log_prob: Tensor,
    particle_dim: int | None,
    dims: Sequence[int],  # batch dimensions of the local plates, leftmost first
) -> Tensor:  # (particles, *local), sizes of one where it does not vary
    """Sum out every batch dimension that is neither the particles' nor a local plate's."""
    keep = list(dims) if particle_dim is None else [particle_dim, *dims]
    drop = [d for d in range(-log_prob.dim(), 0) if d not in keep]
    # torch sums over everything when asked to sum over no dimension
    summed = log_prob.sum(drop) if drop else log_prob
    present = {d for d in keep if d >= -log_prob.dim()}
    missing = len(keep) - len(present)
    if missing:
        summed = summed.reshape((1,) * missing + summed.shape)
    return summed if particle_dim is not None else summed.unsqueeze(0)
