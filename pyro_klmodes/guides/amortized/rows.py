"""The plates whose elements are the data, and the rows of a minibatch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_klmodes.errors import InvalidArgument, UnsupportedStructure
from pyro_klmodes.guides.latents import Latent

__all__ = ["Rows", "data_plates", "elements", "placed"]


@dataclass(frozen=True)
class Rows:
    """Which axes of a data tensor are plates.

    Attributes:
        what: the tensor in words, for errors.
        axes: the axis of the tensor that each data plate runs along, by the plate's name. The
            remaining axes belong to a datum.
    """

    what: str
    axes: dict[str, int]

    def first(
        self,
        data: Tensor,
    ) -> Tensor:  # (*rows, *datum_shape)
        """The data with the axes of the plates in front.

        Raises:
            InvalidArgument: if the tensor has too few axes.
        """
        if data.dim() <= max(self.axes.values()):
            raise InvalidArgument(
                f"{self.what} has shape {tuple(data.shape)}, but needs an axis for "
                f"{_plates(self.axes)}, and after it those of a datum."
            )
        return data.movedim(tuple(self.axes.values()), tuple(range(len(self.axes))))

    def minibatch(
        self,
        data: Tensor,
        plates: Mapping[str, Any],
    ) -> Tensor:  # (*rows, *datum_shape)
        """The rows that the plates ask for, of data in full or of the minibatch.

        Raises:
            InvalidArgument: if the data have neither size.
        """
        rows = self.first(data)
        for axis, name in enumerate(self.axes):
            plate = plates[name]
            if rows.shape[axis] == plate.size:
                # a minibatch as large as the data may still be in another order
                rows = rows.index_select(axis, plate.indices.to(rows.device))
            elif rows.shape[axis] != plate.subsample_size:
                raise InvalidArgument(
                    f"{self.what} has {rows.shape[axis]} rows along plate '{name}', which has "
                    f"{_sizes(plate)}. Pass the data in full or those of the minibatch; if these "
                    "are not the data of that plate, name theirs by plate=."
                )
        return rows


def data_plates(
    latents: Mapping[str, Latent],
    *,
    asked: Sequence[str] | None,
    around: Collection[str] | None,
    length: int | None,
    what: str,
) -> tuple[str, ...]:
    """The plates that the data lie in, leftmost first.

    Args:
        latents: those of the model.
        asked: the plates named by the user, if any.
        around: the plates of the data if they are observed, None if they are an argument.
        length: the size of the data's first axis if they are an argument.
        what: the data in words, for errors.

    Raises:
        InvalidArgument: if a plate named holds no latent, or it is not clear which ones to take.
        UnsupportedStructure: if no latent is in a plate of the data.
    """
    dims = {name: dim for latent in latents.values() for name, dim in latent.plates.items()}
    if asked is not None:
        for name in asked:
            if name not in dims:
                raise InvalidArgument(
                    f"plate='{name}' is no plate around a latent site; these are "
                    f"{_plates(dims) if dims else 'none'}."
                )
        found = set(asked)
    else:
        found = _shared(latents, around, length, what)
    local = [n for n, latent in latents.items() if found <= latent.plates.keys()]
    if not local:
        raise UnsupportedStructure(
            f"no latent site is in {_plates(found)}: there are no local latents to give parameters "
            "to."
        )
    return tuple(sorted(found, key=lambda name: dims[name]))


def _shared(
    latents: Mapping[str, Latent],
    around: Collection[str] | None,
    length: int | None,
    what: str,
) -> set[str]:
    """The plates common to all latents that are in plates of the data."""
    inside = {
        name: {p for p in latent.plates if around is None or p in around}
        for name, latent in latents.items()
    }
    inside = {name: plates for name, plates in inside.items() if plates}
    if not inside:
        where = "a plate" if around is None else f"a plate with {what}"
        raise UnsupportedStructure(
            f"no latent site is in {where}, so none is local to a datum: "
            f"{', '.join(repr(n) for n in latents)}. Sample those that each datum has of its own "
            "in `with pyro.plate(...)`, together with the data."
        )
    common = set.intersection(*inside.values())
    if common:
        return common
    fitting = {
        plate
        for latent in latents.values()
        for plate, dim in latent.plates.items()
        if latent.batch_shape[dim] == length
    }
    if len(fitting) == 1:
        return fitting
    places = "; ".join(f"'{name}' in {_plates(plates)}" for name, plates in inside.items())
    raise InvalidArgument(
        f"it is not clear which plate the elements of {what} are: the latents are in different "
        f"ones ({places}). Say which by plate=."
    )


def placed(
    raw: Tensor,  # (rows, elements, P)
    latent: Latent,
    sizes: Mapping[str, int],  # of the data plates, in the order of their axes
) -> Tensor:  # (*batch, P)
    """Parameters by row, and by element of the site's other plates, where its plates are."""
    others = [name for name in latent.plates if name not in sizes]
    names = [*sizes, *others]
    dims = [latent.plates[name] for name in names]
    lengths = [*sizes.values(), *(latent.batch_shape[latent.plates[n]] for n in others)]
    batch = [1] * -min(dims)
    for dim, length in zip(dims, lengths, strict=True):
        batch[dim] = length
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    spread = raw.reshape(*lengths, raw.shape[-1]).permute(*order, len(dims))
    return spread.reshape(*batch, raw.shape[-1])


def elements(
    latent: Latent,
    plates: Collection[str],
) -> int:
    """How many elements a site has for each datum, by its plates that are not the data's."""
    return math.prod(latent.batch_shape[d] for n, d in latent.plates.items() if n not in plates)


def _plates(names: Collection[str]) -> str:
    quoted = " and ".join(f"'{name}'" for name in names)
    return f"{'plates' if len(names) > 1 else 'plate'} {quoted}"


def _sizes(plate: Any) -> str:
    if plate.subsample_size == plate.size:
        return f"size {plate.size}"
    return f"size {plate.size} and minibatches of {plate.subsample_size}"
