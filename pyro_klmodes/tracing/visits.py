"""The full data of a model that sees minibatches: chunk after chunk, put together by index."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.tracing.sites import PlateAxis, SiteInfo

__all__ = ["Kept", "Piece", "Visit", "put", "select", "stitch", "visits_of"]

Visit = Mapping[str, Tensor]  # indices by name of the subsampled plate


@dataclass(frozen=True)
class Piece:
    """What one run gave for its minibatch.

    Attributes:
        value: draws first, ``(s, *shape)``.
        axes: for each plate the axis of ``value`` it has, counted from the right.
    """

    value: Tensor
    axes: Mapping[str, int] = field(default_factory=dict)


def visits_of(sites: Mapping[str, SiteInfo]) -> tuple[dict[str, int], list[Visit]]:
    """Full sizes of the subsampled plates, and minibatches that together see every element.

    All minibatches have the size the model asks for; the last of a plate overlaps the one before.
    Several subsampled plates are visited in all combinations.

    Raises:
        InvalidArgument: if the arguments themselves hold a minibatch.
        UnsupportedStructure: if a deterministic value cannot be put together.
    """
    plates: dict[str, PlateAxis] = {}
    for site in sites.values():
        for plate in site.plates:
            if plate.batch == plate.size:
                continue
            if plate.given:
                raise InvalidArgument(
                    f"the arguments hold a minibatch of plate '{plate.name}' ({plate.batch} of "
                    f"{plate.size}): pass args=(...) with the full data."
                )
            if site.ambiguous:
                raise UnsupportedStructure(
                    f"deterministic site '{site.name}' has several axes as long as the minibatch "
                    f"of plate '{plate.name}'. Say which are the event: pyro.deterministic"
                    f"('{site.name}', value, event_dim=...)."
                )
            plates[plate.name] = plate
    chunks = [[(name, rows) for rows in _chunks(p.size, p.batch)] for name, p in plates.items()]
    return (
        {name: p.size for name, p in plates.items()},
        [dict(combination) for combination in itertools.product(*chunks)],
    )


def _chunks(size: int, batch: int) -> list[Tensor]:
    starts = [*range(0, size - batch, batch), size - batch]
    return [torch.arange(start, start + batch) for start in starts]


def select(value: Tensor, axes: Mapping[str, int], visit: Visit) -> Tensor:
    """The part of a value for the full data that a minibatch sees."""
    for plate, rows in visit.items():
        axis = axes.get(plate)
        if axis is not None:
            value = value.index_select(axis, rows.to(value.device))
    return value


def stitch(parts: Iterable[tuple[Visit, Piece]], sizes: Mapping[str, int]) -> Piece:
    """Put the pieces of all minibatches together; where they overlap the last one counts."""
    whole: Tensor | None = None
    piece = None
    for visit, piece in parts:
        inside = {n: rows for n, rows in visit.items() if n in piece.axes}
        if not inside:
            if whole is None:  # the same in every minibatch
                whole = piece.value
            continue
        if whole is None:
            shape = list(piece.value.shape)
            for name in inside:
                shape[piece.axes[name]] = sizes[name]
            whole = piece.value.new_empty(shape)
        put(whole, piece.value, [(piece.axes[n], rows) for n, rows in inside.items()])
    assert whole is not None
    assert piece is not None
    return Piece(whole, piece.axes)


def put(whole: Tensor, part: Tensor, where: Sequence[tuple[int, Tensor]]) -> None:
    """Write a part into the rows of a whole, axis by axis."""
    (axis, rows), *rest = where
    rows = rows.to(whole.device)
    if rest:
        slab = whole.index_select(axis, rows)
        put(slab, part, rest)
        part = slab
    whole.index_copy_(axis, rows, part)


class Kept:
    """What was drawn before for the same elements, so that it is not drawn again.

    Globals are drawn in the first minibatch and held fixed in all others; a local latent keeps its
    value as long as the minibatches of its own plates are the same.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._plates: dict[str, tuple[str, ...]] = {}

    def at(self, visit: Visit) -> dict[str, Tensor]:
        """The values to hold fixed in this visit, and the indices of the visit."""
        found: dict[str, Tensor] = dict(visit)
        for name, plates in self._plates.items():
            value = self._values.get((name, _key(plates, visit)))
            if value is not None:
                found[name] = value
        return found

    def keep(self, name: str, value: Tensor, plates: Iterable[str], visit: Visit) -> None:
        """Remember a value as it stands in the trace of a visit."""
        inside = tuple(sorted(set(plates) & set(visit)))
        self._plates[name] = inside
        self._values[name, _key(inside, visit)] = value


def _key(plates: tuple[str, ...], visit: Visit) -> tuple[int, ...]:
    return tuple(int(visit[plate][0]) for plate in plates)
