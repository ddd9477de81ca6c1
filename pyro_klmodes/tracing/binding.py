"""Where among the arguments a model has its data from, and other data in these places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.tracing.arguments import Path, by_place, described, replaced, tensors_in
from pyro_klmodes.tracing.observed import Observed

__all__ = ["Bind", "Slot", "find_slots", "rebound"]

#: position or name of an argument by observed site
Bind = Mapping[str, int | str]


@dataclass(frozen=True)
class Slot:
    """The part of an argument that an observed site shows.

    Attributes:
        path: where the tensor is among the arguments.
        view: size, stride and offset from the tensor's own, if the site shows a view of it.
        rows: indices by axis, if the site shows a minibatch of its rows.
    """

    path: Path
    view: tuple[tuple[int, ...], tuple[int, ...], int] | None = None
    rows: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether the site shows all of the argument."""
        return self.view is None and not self.rows

    def part(self, whole: Tensor) -> Tensor:
        """What the site shows of the argument; a view where that is possible."""
        if self.view is not None:
            size, stride, offset = self.view
            return whole.as_strided(size, stride, whole.storage_offset() + offset)
        for axis, index in self.rows.items():
            whole = whole.index_select(axis, index.to(whole.device))
        return whole

    def write(self, into: Tensor, value: Tensor) -> None:
        """Put other data into a copy of the argument."""
        if self.rows:
            where: list[slice | Tensor] = [slice(None)] * into.dim()
            axes = sorted(self.rows)
            for position, axis in enumerate(axes):
                shape = [-1 if i == position else 1 for i in range(len(axes))]
                where[axis] = self.rows[axis].reshape(shape).to(into.device)
            into[tuple(where)] = value.to(into)
        else:
            part = self.part(into)
            part.copy_(value.expand(part.shape))


def find_slots(
    observed: Mapping[str, Observed],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    bind: Bind,
    names: Sequence[str],
) -> dict[str, tuple[Slot, ...]]:
    """The slots of every observed site, none for a site whose data are not among the arguments.

    The very tensor is looked for, then a view of one (``x[:, t]``, ``x.reshape(-1, 784)``), then
    the same numbers, in full or in the rows of the minibatch.

    Args:
        observed: what the model observes with these arguments.
        args: positional arguments.
        kwargs: keyword arguments.
        bind: position or name of the argument by site, for those that are known.
        names: of the model's positional parameters.

    Raises:
        InvalidArgument: if ``bind`` names what there is not, or several arguments hold the numbers
            of a site or one those of several.
    """
    for site in bind:
        if site not in observed:
            raise InvalidArgument(
                f"bind: '{site}' is not an observed site; there are {sorted(observed)}."
            )
    tensors = list(tensors_in(args, dict(kwargs)))
    found = {
        site: (_bound(site, seen, bind[site], args, kwargs, names),)
        if site in bind
        else _search(site, seen, tensors)
        for site, seen in observed.items()
    }
    whole = [slot.path for slots in found.values() for slot in slots if slot.whole]
    taken = [slot.path for slots in found.values() for slot in slots]
    for path in whole:
        if taken.count(path) > 1:
            raise InvalidArgument(
                f"observed sites {sorted(found)} share an argument ({described(path)}). Pass "
                "their data in separate ones."
            )
    return found


def rebound(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    slots: Mapping[str, Sequence[Slot]],
    data: Mapping[str, Tensor],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other data in the slots of their sites."""
    here = dict(tensors_in(args, dict(kwargs)))
    new: dict[Path, Tensor] = {}
    for site, value in data.items():
        for slot in slots.get(site, ()):
            old = here[slot.path]
            if slot.whole:
                new[slot.path] = _in_the_form_of(old, value)
                continue
            if slot.path not in new:
                new[slot.path] = old.detach().clone(memory_format=torch.preserve_format)
            slot.write(new[slot.path], value)
    return replaced(args, kwargs, new)


def _search(site: str, seen: Observed, tensors: Sequence[tuple[Path, Tensor]]) -> tuple[Slot, ...]:
    # all that share its memory: a guide may read the data by another argument than the model
    shared = tuple(
        slot
        for path, x in tensors
        if (slot := Slot(path) if x is seen.value else _view(path, x, seen.value)) is not None
    )
    if shared:
        return shared
    equal = tuple(slot for path, x in tensors if (slot := _equal(path, x, seen)) is not None)
    if len(equal) > 1:
        raise InvalidArgument(
            f"several arguments hold the numbers that site '{site}' observes. Say which by "
            f'bind={{"{site}": position or name}}.'
        )
    return equal


def _view(path: Path, x: Tensor, value: Tensor) -> Slot | None:
    """The slot of a value that shares the memory of a dense argument."""
    if x.dtype != value.dtype or x.device != value.device or x.numel() == 0:
        return None
    if x.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
        return None
    # a copy must lay out its elements in the same order
    if x.clone(memory_format=torch.preserve_format).stride() != x.stride():
        return None
    offset = int(value.storage_offset()) - int(x.storage_offset())
    reach = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    extent = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    if offset < 0 or offset + reach > extent:
        return None
    return Slot(path, view=(tuple(value.shape), tuple(value.stride()), offset))


def _equal(path: Path, x: Tensor, seen: Observed) -> Slot | None:
    """The slot of a value that is a copy: of all of the argument, or of some rows."""
    value = seen.value
    if x.dtype != value.dtype or x.dim() != value.dim():
        return None
    if x.shape == value.shape and torch.equal(x, value):
        return Slot(path)
    rows = {}
    for name, dim in seen.plates.items():
        axis = value.dim() - seen.event_dim + dim
        index = seen.indices.get(name)
        if index is None or axis < 0:
            continue
        if index.numel() != value.shape[axis] or int(index.max()) >= x.shape[axis]:
            return None
        rows[axis] = index
    slot = Slot(path, rows=rows)
    part = slot.part(x)
    return slot if rows and part.shape == value.shape and torch.equal(part, value) else None


def _bound(
    site: str,
    seen: Observed,
    place: int | str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    names: Sequence[str],
) -> Slot:
    if isinstance(place, str) and place not in kwargs and place in names:
        place = names.index(place)
    given = by_place(args, kwargs)
    if place not in given:
        raise InvalidArgument(
            f"bind: site '{site}' is bound to argument {place!r}, which is not passed."
        )
    tensor = given[place]
    if not isinstance(tensor, Tensor):
        raise InvalidArgument(
            f"bind: site '{site}' is bound to argument {place!r}, which is no tensor but "
            f"{type(tensor).__name__}."
        )
    inside = _search(site, seen, [((place,), tensor)])
    if inside:
        return inside[0]
    if tensor.numel() != seen.value.numel():
        raise InvalidArgument(
            f"bind: site '{site}' observes a tensor of shape {tuple(seen.value.shape)}, which does "
            f"not fit into argument {place!r} of shape {tuple(tensor.shape)}."
        )
    return Slot((place,))


def _in_the_form_of(old: Tensor, value: Tensor) -> Tensor:
    """The value in the shape and dtype of an argument of as many elements."""
    if value.numel() != old.numel():
        return value
    return value.reshape(old.shape).to(old.dtype)
