"""Inference data from arrays: groups, names of axes, coordinates and attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.versions import tree

__all__ = ["SAMPLE_DIMENSIONS", "Variable", "attribute", "build", "datasets"]

# ArviZ 1.x allows other names for these two, but then its summary and its LOO fail.
SAMPLE_DIMENSIONS = ("chain", "draw")
GROUPS_OF_DRAWS = (
    "posterior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
)
GROUPS_OF_DATA = ("observed_data", "constant_data")
# These are read together, draw by draw.
SAME_DRAWS = ("posterior", "log_likelihood", "sample_stats")


@dataclass(frozen=True)
class Variable:
    """One array of inference data with the names of its own axes.

    Attributes:
        values: Numbers or booleans, of shape ``(chains, draws, *shape)`` in groups of draws and
            ``shape`` in ``observed_data`` and ``constant_data``.
        dims: One name per axis of ``shape``, or None for ``<variable>_dim_0`` and so on. Variables
            that share a name share the axis and its coordinates.
    """

    values: Any
    dims: tuple[str, ...] | None = None


def build(
    groups: Mapping[str, Mapping[str, Variable]],
    *,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Inference data of the installed version of ArviZ.

    Draws have the axes ``chain`` and ``draw`` first: a guide has one chain, MCMC as many as it
    ran.

    Args:
        groups: For each group its variables. Groups of draws are ``posterior``,
            ``posterior_predictive``, ``prior``, ``prior_predictive``, ``log_likelihood`` and
            ``sample_stats``; groups of data are ``observed_data`` and ``constant_data``. Groups
            without variables are left out.
        coords: Labels for the entries of named axes; axes left out are numbered from 0.
        attributes: Attributes of the whole object and of its ``posterior`` group. Strings and
            numbers are kept, None becomes an empty string and anything else JSON, because NetCDF
            has nothing else.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (ArviZ 1.x).

    Raises:
        InvalidArgument: If a group is unknown; an array does not have the axes it must have or is
            not of numbers; an axis is named like a variable of its group, ``chain`` or ``draw``;
            one name of an axis stands for two sizes; ``coords`` label an axis that does not exist
            or has another length; or the groups ``posterior``, ``log_likelihood`` and
            ``sample_stats`` differ in chains or draws.

    Example:
        >>> import numpy as np
        >>> theta = Variable(np.zeros((1, 5, 3)), ("school",))
        >>> data = build({"posterior": {"theta": theta}}, coords={"school": ["a", "b", "c"]})
        >>> dict(data.posterior.sizes)
        {'chain': 1, 'draw': 5, 'school': 3}
    """
    made = datasets(groups, coords=coords)
    plain = {str(name): attribute(value) for name, value in (attributes or {}).items()}
    if "posterior" in made:
        # ArviZ's own tools look at the posterior group, people at the whole object.
        made["posterior"].attrs.update(plain)
    return tree(made, plain)


def datasets(
    groups: Mapping[str, Mapping[str, Variable]],
    *,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
) -> dict[str, xr.Dataset]:
    """One dataset per group, checked as `build` says."""
    arrays = {
        group: {str(name): _array(group, str(name), variable) for name, variable in content.items()}
        for group, content in groups.items()
        if content
    }
    if not arrays:
        raise InvalidArgument("groups hold no variable at all; give at least one")
    sizes = _sizes(arrays)
    labels = _labels(coords or {}, sizes)
    made = {}
    for group, content in arrays.items():
        used = {
            dim: size for array in content.values() for dim, size in array.sizes.items()
        }  # chain and draw may have other sizes in other groups
        axes = {dim: labels.get(str(dim), np.arange(size)) for dim, size in used.items()}
        made[group] = xr.Dataset(content).assign_coords(axes)
    return made


def attribute(value: Any) -> str | int | float:
    """A value that NetCDF can store as an attribute."""
    if value is None:
        return ""
    if isinstance(value, np.generic):
        value = value.item()
    # NetCDF has no booleans; as JSON they stay readable.
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    return json.dumps(value, default=_as_json)


def _as_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _array(group: str, name: str, variable: Variable) -> xr.DataArray:
    where = f"variable {name!r} of group {group!r}"
    if group not in (*GROUPS_OF_DRAWS, *GROUPS_OF_DATA):
        known = ", ".join((*GROUPS_OF_DRAWS, *GROUPS_OF_DATA))
        raise InvalidArgument(f"there is no group {group!r}; the groups are {known}")
    if "/" in name:
        raise InvalidArgument(
            f"{where}: files use '/' for groups; rename it, for instance with '.'"
        )
    values = np.asarray(variable.values)
    if values.dtype.kind not in ("biuf" if group in GROUPS_OF_DRAWS else "biufU"):
        raise InvalidArgument(f"{where} holds {values.dtype}; only numbers and booleans are stored")
    lead = SAMPLE_DIMENSIONS if group in GROUPS_OF_DRAWS else ()
    if values.ndim < len(lead) or 0 in values.shape[: len(lead)]:
        raise InvalidArgument(
            f"{where} has shape {values.shape}; it must start with (chains, draws), at least one "
            "each. Draws of a guide are one chain: values[None]"
        )
    count = values.ndim - len(lead)
    dims = _numbered(name, count) if variable.dims is None else tuple(map(str, variable.dims))
    if len(dims) != count:
        raise InvalidArgument(
            f"{where} has {count} axes of its own (shape {values.shape[len(lead) :]}), but dims "
            f"name {len(dims)}: {dims}"
        )
    if len(set(dims)) < len(dims) or set(dims) & set(SAMPLE_DIMENSIONS):
        raise InvalidArgument(
            f"{where} has dims {dims}: names must differ from each other and from 'chain' and "
            "'draw'"
        )
    return xr.DataArray(values, dims=(*lead, *dims))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{axis}" for axis in range(count))


def _sizes(arrays: Mapping[str, Mapping[str, xr.DataArray]]) -> dict[str, tuple[int, str]]:
    """For every named axis its size and a variable that has it; refuses contradictions."""
    sizes: dict[str, tuple[int, str]] = {}
    for group, content in arrays.items():
        for name, array in content.items():
            where = f"variable {name!r} of group {group!r}"
            for dim, size in array.sizes.items():
                if dim in content:
                    raise InvalidArgument(
                        f"{where} has an axis named {dim!r}, and group {group!r} has a variable "
                        f"{dim!r} too; xarray would take them as one: give the axis another name"
                    )
                # Groups of draws may have been sampled apart, apart from those read together.
                shared = "posterior" if group in SAME_DRAWS else group
                key = f"{dim} of {shared}" if dim in SAMPLE_DIMENSIONS else str(dim)
                first, first_where = sizes.setdefault(key, (size, where))
                if first != size:
                    raise InvalidArgument(
                        f"axis {dim!r} has {first} entries in {first_where} and {size} in {where}"
                    )
    return sizes


def _labels(
    coords: Mapping[str, Sequence[Any] | np.ndarray], sizes: Mapping[str, tuple[int, str]]
) -> dict[str, np.ndarray]:
    labels = {}
    for dim, values in coords.items():
        label = np.asarray(values)
        if label.dtype.kind == "O" and all(isinstance(value, str) for value in label.flat):
            label = label.astype(str)
        if dim not in sizes:
            named = ", ".join(name for name in sizes if " of " not in name) or "none"
            raise InvalidArgument(f"coords label {dim!r}, but the named axes are: {named}")
        size, where = sizes[dim]
        if label.shape != (size,):
            raise InvalidArgument(
                f"coords give {label.size} labels for axis {dim!r}, which has {size} entries in "
                f"{where}"
            )
        labels[dim] = label
    return labels
