"""The entries of all parameters under one numbering, and finding them in what a model computes.

An argument of a distribution often *selects* entries of a parameter: ``loc[z]``, ``scale``, a row
of ``transition[previous]``. Such a selection is seen from outside: at values of the parameters that
are all different, each element of the argument equals one entry, in several runs the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import transform_to

from pyro_klmodes.inference.em.parameters import ParameterInfo

__all__ = ["Entries", "unexpanded"]

_PROBES = 3  # two find an entry among many, the third confirms it
_NEIGHBOURS = 4  # how many entries of nearly the same value are looked at, on either side


class Entries:
    """All entries of some parameters, numbered from 0 to P-1 in order.

    Args:
        parameters: by name.

    Attributes:
        probes: constrained values at which no two entries are alike, one mapping per run.
        eps: the rounding error of the coarsest parameter.
    """

    def __init__(self, parameters: Mapping[str, ParameterInfo]) -> None:
        self.parameters = dict(parameters)
        self.offsets: dict[str, int] = {}
        count = 0
        for name, info in self.parameters.items():
            self.offsets[name] = count
            count += info.value.numel()
        self.count = count
        floats = [i.value.dtype for i in self.parameters.values() if i.value.is_floating_point()]
        self.eps = max((torch.finfo(d).eps for d in floats), default=torch.finfo(torch.double).eps)
        generator = torch.Generator().manual_seed(20_230_517)
        self.probes = [
            # the second is negative, so that abs() and clamp(min=0) are told from a selection
            {n: _spread(info, generator, -1 if i == 1 else 1) for n, info in parameters.items()}
            for i in range(_PROBES)
        ]
        self._sorted, self._numbers = self._sort()

    def _sort(self) -> tuple[Tensor, Tensor]:  # (probes, D), (D,)
        """The distinct entries by their value in the first run, and their numbers."""
        rows = [self.flat({n: v[None] for n, v in probe.items()})[0] for probe in self.probes]
        table = torch.stack(rows)
        moves = (table != table[:1]).any(0).nonzero().squeeze(-1)  # not the zeros of a triangle
        distinct, inverse = torch.unique(table[:, moves], dim=1, return_inverse=True)
        first = torch.full((distinct.shape[1],), self.count)
        first.scatter_reduce_(0, inverse, moves, "amin")
        return distinct, first

    def is_free(self, name: str) -> bool:
        """Whether a parameter can have different values; the share of a single component cannot."""
        first, *others = (probe[name] for probe in self.probes)
        return any(not torch.equal(first, other) for other in others)

    def find(
        self,
        seen: Sequence[Tensor],  # (*shape) each, one per run
    ) -> Tensor | None:  # (*shape), integers
        """Which entry every element of an argument is, or None if any element is none."""
        wanted = torch.stack([x.detach().double().cpu().flatten() for x in seen])
        if not self._numbers.numel():
            return None
        near = torch.searchsorted(self._sorted[0].contiguous(), wanted[0].contiguous())
        best = torch.full_like(wanted[0], torch.inf)
        found = torch.zeros_like(near)
        for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
            place = (near + step).clamp(0, self._numbers.numel() - 1)
            here = self._sorted[:, place]
            error = ((wanted - here).abs() / here.abs().clamp(min=1e-300)).amax(0)
            found = torch.where(error < best, place, found)
            best = torch.minimum(best, error)
        if not bool((best <= self.rounding(seen[0])).all()):  # also where it is not a number
            return None
        return self._numbers[found].reshape(seen[0].shape)

    def rounding(self, x: Tensor) -> float:
        """The relative error within which numbers are the same: 2e-12 in double precision."""
        own = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        return float(max(self.eps, own) ** 0.75)

    def owner(self, entry: int) -> str:
        """The parameter that an entry belongs to."""
        return next(n for n in reversed(self.offsets) if self.offsets[n] <= entry)

    def owners(self, entries: Tensor) -> set[str]:
        """The parameters that some entries belong to."""
        starts = torch.tensor(list(self.offsets.values()))
        names = list(self.offsets)
        which = torch.searchsorted(starts, entries.flatten().unique(), right=True) - 1
        return {names[i] for i in which.unique().tolist()}

    def index(self, entry: int, event_dim: int = 0) -> tuple[int, ...]:
        """The index of an entry in its parameter, without its last ``event_dim`` dimensions."""
        name = self.owner(entry)
        place = torch.tensor(entry - self.offsets[name])
        index = torch.unravel_index(place, self.parameters[name].value.shape or (1,))
        whole = tuple(int(i) for i in index)[: self.parameters[name].value.dim()]
        return whole[: len(whole) - event_dim]

    def flat(
        self,
        values: Mapping[str, Tensor],  # {name: (R, *shape)}
    ) -> Tensor:  # (R, P), double precision
        """Values in the order of the numbering."""
        parts = [values[n].detach().double() for n in self.parameters]
        return torch.cat([p.reshape(len(p), -1) for p in parts], 1).cpu()

    def shaped(
        self,
        name: str,
        flat: Tensor,  # (R, P)
    ) -> Tensor:  # (R, *shape)
        """The values of one parameter."""
        value = self.parameters[name].value
        start = self.offsets[name]
        part = flat[:, start : start + value.numel()]
        return part.reshape(len(flat), *value.shape).to(value)


def _spread(info: ParameterInfo, generator: torch.Generator, sign: int) -> Tensor:
    """A constrained value without two equal coordinates: evenly spread, in random order.

    Unconstrained coordinates all have the given sign.
    """
    transform = transform_to(info.constraint)
    shape = torch.Size(transform.inverse_shape(info.value.shape))
    size = shape.numel()
    order = torch.randperm(size, generator=generator).double()
    jitter = 0.2 + 0.6 * torch.rand(size, generator=generator, dtype=torch.float64)
    even = 0.25 + (order + jitter) / max(size, 1)  # not near zero, where relative errors grow
    value: Tensor = transform(sign * even.reshape(shape).to(info.value))
    return value.detach()


def unexpanded(x: Tensor) -> Tensor:
    """A view with size 1 wherever a dimension only repeats what is in memory once.

    Example:
        >>> unexpanded(torch.zeros(3, 1).expand(5, 3, 4)).shape
        torch.Size([1, 3, 1])
    """
    for d in range(x.dim()):
        if x.shape[d] > 1 and x.stride(d) == 0:
            x = x.narrow(d, 0, 1)
    return x
