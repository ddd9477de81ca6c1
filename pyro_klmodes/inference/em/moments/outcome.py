"""What a closed-form M-step returns: new values, and what is wrong with which start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.inference.em.moments.entries import Entries

__all__ = ["Fault", "Maximised", "outside"]


@dataclass(frozen=True)
class Fault:
    """Why a start has no maximum.

    Attributes:
        start: which of the R starts.
        parameter: its name.
        entry: which member of it: an index, or the index of a row or a matrix.
        what: the reason in words, and a way out.
    """

    start: int
    parameter: str
    entry: tuple[int, ...]
    what: str

    def __str__(self) -> str:
        place = "".join(f"[{i}]" for i in self.entry)
        return f"start {self.start}: parameter '{self.parameter}'{place} {self.what}"


@dataclass(frozen=True)
class Maximised:
    """New values of some parameters.

    Attributes:
        values: ``{parameter: (R, *shape)}``; a start with a fault keeps its values.
        faults: what is wrong with which start, the first fault of each parameter.
    """

    values: dict[str, Tensor]
    faults: list[Fault]


def outside(
    values: Mapping[str, Tensor],  # {parameter: (R, *shape)}
    entries: Entries,
    told: Collection[int],
) -> list[Fault]:
    """Maxima that are not what the parameter may be, in starts not told of already."""
    faults = []
    for name, value in values.items():
        if value.numel() == 0:
            continue
        constraint = entries.parameters[name].constraint
        inside = constraint.check(value)
        good = inside.reshape(*inside.shape, *[1] * (value.dim() - inside.dim()))
        bad = ~(good & value.isfinite())
        seen = set(told)
        for start, *index in bad.nonzero().tolist():
            if start not in seen:
                seen.add(start)
                what = (
                    f"would be {float(value[(start, *index)]):.4g}, on or beyond the boundary of "
                    f"its constraint {constraint!r}. Start elsewhere, use fewer components, widen "
                    "the constraint, or use a prior (points=[...])."
                )
                faults.append(Fault(start, name, tuple(index[: inside.dim() - 1]), what))
    return faults
