"""Names for the axes of all variables: the user's, else the plates', else numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_klmodes.conversion.arrays import Array, Groups
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data import Variable

__all__ = ["Axes"]

_DRAWS = ("chain", "draw")
_DATA = ("observed_data", "constant_data")


class Axes:
    """Decides on names with the first block; later ones have the same.

    A plate names its axes, unless its name is that of a variable, of an axis of draws, or already
    stands for another size; then it gets the suffix ``_dim``, or the axis a number.

    Args:
        dims: for a variable, one name per axis, without chains and draws.
        coords: for an axis, one label per entry.

    Raises:
        InvalidArgument: if ``dims`` or ``coords`` do not fit, when the first block is named.
    """

    def __init__(
        self,
        dims: Mapping[str, Sequence[str]] | None,
        coords: Mapping[str, Sequence[Any] | np.ndarray] | None,
    ) -> None:
        self.dims = {name: _names(name, given) for name, given in (dims or {}).items()}
        self._given_coords = dict(coords or {})
        self.coords: dict[str, Any] = {}
        self._chosen: dict[tuple[str, str], tuple[str, ...]] = {}
        self._sizes: dict[str, tuple[int, str]] = {}
        self._plates: dict[str, str] = {}

    def name(self, groups: Groups, chains: int) -> dict[str, dict[str, Variable]]:
        """Variables of inference data, chains and draws on axes of their own."""
        if not self._chosen:
            self._choose(groups)
        made: dict[str, dict[str, Variable]] = {}
        for group, content in groups.items():
            made[group] = {}
            for name, array in content.items():
                values = array.values.detach().cpu().numpy()
                if group not in _DATA:
                    values = values.reshape(chains, -1, *values.shape[1:])
                made[group][name] = Variable(values, self._chosen[group, name])
        return made

    def _choose(self, groups: Groups) -> None:
        variables = {name for content in groups.values() for name in content}
        for name in sorted(variables & set(_DRAWS)):
            raise InvalidArgument(
                f"'{name}' is the name of a site or argument and of an axis that all draws have. "
                "Rename it in the model."
            )
        unknown = sorted(set(self.dims) - variables)
        if unknown:
            raise InvalidArgument(
                f"dims name '{unknown[0]}', which is no variable; these are: "
                f"{', '.join(sorted(variables))}."
            )
        taken = {*variables, *_DRAWS}
        for given in self.dims.values():  # the user's names first: they cannot give way
            for dim in given:
                if dim in taken:
                    raise InvalidArgument(
                        f"dims give an axis the name '{dim}', which a variable or an axis of draws "
                        "has. Choose another one."
                    )
        ordered = sorted(groups.items(), key=lambda item: item[0] != "posterior")
        entries = [(g, n, a) for g, content in ordered for n, a in content.items()]
        for group, name, array in sorted(entries, key=lambda entry: entry[1] not in self.dims):
            self._chosen[group, name] = self._of(group, name, array, taken)
        self._check_coords()

    def _of(self, group: str, name: str, array: Array, taken: set[str]) -> tuple[str, ...]:
        shape = tuple(array.values.shape[0 if group in _DATA else 1 :])
        if array.data is not None:
            label = _free(f"{name}_datum", taken)
            self._sizes[label] = (shape[0], name)
            self.coords[label] = array.data.cpu().numpy()
            return (label,)
        if name in self.dims:
            return self._given(group, name, shape)
        by_axis = {axis: plate for plate, axis in array.axes.items()}
        return tuple(
            self._plate(by_axis.get(i - len(shape)), size, taken)
            or self._numbered(f"{name}_dim_{i}", size, name, taken)
            for i, size in enumerate(shape)
        )

    def _given(self, group: str, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
        given = self.dims[name]
        if group == "log_likelihood":  # which has no event axes
            given = given[: len(shape)]
        if len(given) != len(shape):
            raise InvalidArgument(
                f"dims give '{name}' {len(given)} names, {given}, but it has {len(shape)} axes, of "
                f"shape {shape} (without chains and draws)."
            )
        for dim, size in zip(given, shape, strict=True):
            first, where = self._sizes.setdefault(dim, (size, name))
            if first != size:
                raise InvalidArgument(
                    f"dims give the name '{dim}' to an axis of {first} entries in '{where}' and to "
                    f"one of {size} in '{name}'. Choose two names."
                )
        return given

    def _plate(self, plate: str | None, size: int, taken: set[str]) -> str | None:
        if plate is None:
            return None
        label = self._plates.setdefault(plate, _free(plate, taken) if plate in taken else plate)
        first, _ = self._sizes.setdefault(label, (size, f"plate {plate}"))
        return label if first == size else None

    def _numbered(self, label: str, size: int, name: str, taken: set[str]) -> str:
        while label in taken or self._sizes.get(label, (size, ""))[0] != size:
            label += "_"
        self._sizes[label] = (size, name)
        return label

    def _check_coords(self) -> None:
        for dim, labels in self._given_coords.items():
            label = self._plates.get(dim, dim)
            if label not in self._sizes:
                raise InvalidArgument(
                    f"coords label '{dim}', which is no axis; these are: "
                    f"{', '.join(sorted(self._sizes))}."
                )
            size, where = self._sizes[label]
            if len(labels) != size:
                raise InvalidArgument(
                    f"coords give {len(labels)} labels for '{dim}', which has {size} entries (in "
                    f"{where})."
                )
            self.coords[label] = labels


def _free(label: str, taken: set[str]) -> str:
    label = label if label not in taken else f"{label}_dim"
    while label in taken:
        label += "_"
    return label


def _names(name: str, given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(dim, str) for dim in given):
        raise InvalidArgument(f"dims['{name}'] must be a sequence of names, one per axis.")
    names = tuple(given)
    if len(set(names)) < len(names):
        raise InvalidArgument(f"dims['{name}'] = {names} names two axes alike.")
    return names
