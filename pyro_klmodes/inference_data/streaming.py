"""Draws written to a NetCDF file chunk by chunk: only one chunk is ever in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.files import ENGINE
from pyro_klmodes.inference_data.structure import Variable, attribute, datasets

__all__ = ["StreamWriter", "write_in_chunks"]

# One chunk of the file; HDF5 keeps 1 MiB of chunks per variable in memory.
CHUNK_BYTES = 2**18
MOST_DRAWS_PER_CHUNK = 2**10


class StreamWriter:
    """Appends draws to a NetCDF file that `read` and ``arviz.from_netcdf`` read afterwards.

    The file is closed after every chunk, so a run that is killed leaves all finished chunks. Its
    axis ``draw`` is unlimited in the sense of NetCDF.

    Args:
        path: The file; the first chunk replaces what is there.
        coords: Labels for the entries of named axes, as in `build`.
        attributes: Attributes of the whole object and of its ``posterior`` group, as in `build`.

    Raises:
        InvalidArgument: If the name ends with ``.zarr``.

    Example:
        >>> import tempfile, numpy as np
        >>> from pyro_klmodes.inference_data import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = StreamWriter(f"{folder}/fit.nc")
        ...     for _ in range(3):
        ...         writer.append({"posterior": {"mu": Variable(np.zeros((1, 100)))}})
        ...     dict(read(f"{folder}/fit.nc").posterior.sizes)
        {'chain': 1, 'draw': 300}
    """

    def __init__(
        self,
        path: str | Path,
        *,
        coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix == ".zarr":
            raise InvalidArgument("draws are streamed to NetCDF; take a name that ends with .nc")
        self._coords = coords
        self._attributes = {str(k): attribute(value) for k, value in (attributes or {}).items()}
        self._layout: dict[str, dict[str, tuple[Any, ...]]] = {}

    def append(self, groups: Mapping[str, Mapping[str, Variable]]) -> None:
        """Write the next draws of every chain.

        Args:
            groups: As in `build`. The first chunk says what there is; every later chunk has the
                same groups of draws with the same variables, axes and types, and any number of
                draws. Groups of data (``observed_data``, ``constant_data``) come with the first
                chunk only.

        Raises:
            InvalidArgument: If a later chunk holds something else than the first, and for whatever
                `build` refuses; the file stays as it was.
        """
        if not self._layout:
            made = datasets(groups, coords=self._coords)
            self._create(made)
            self._layout = _layout(made)
            return
        made = datasets(groups)
        self._refuse_other_layout(_layout(made))
        with h5netcdf.File(self.path, "r+") as file:
            for group, chunk in made.items():
                _extend(file[group], chunk)

    def _create(self, groups: Mapping[str, xr.Dataset]) -> None:
        if "posterior" in groups:
            groups["posterior"].attrs.update(self._attributes)
        xr.Dataset(attrs=self._attributes).to_netcdf(self.path, mode="w", engine=ENGINE)
        for group, chunk in groups.items():
            growing = {
                name: {"chunksizes": _chunk_shape(variable)}
                for name, variable in chunk.variables.items()
                if "draw" in variable.dims
            }
            chunk.to_netcdf(
                self.path,
                group=group,
                mode="a",
                engine=ENGINE,
                encoding=growing,
                unlimited_dims=["draw"] if growing else None,
            )

    def _refuse_other_layout(self, layout: Mapping[str, Mapping[str, tuple[Any, ...]]]) -> None:
        first = {group: held for group, held in self._layout.items() if held}
        for group in first.keys() | layout.keys():
            if not layout.get(group) or group not in first:
                raise InvalidArgument(
                    f"this chunk has the groups {sorted(layout)}, but after the first chunk every "
                    f"chunk must have the groups of draws {sorted(first)}"
                )
            for name in first[group].keys() | layout[group].keys():
                before, now = first[group].get(name), layout[group].get(name)
                if before != now:
                    raise InvalidArgument(
                        f"variable {name!r} of group {group!r} is {now} in this chunk and {before} "
                        "in the first (dims, sizes without draw, type)"
                    )


def write_in_chunks(
    path: str | Path,
    chunks: Iterable[Mapping[str, Mapping[str, Variable]]],
    *,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write draws as they come; memory holds one chunk, however many there are.

    Args:
        path: The file, replaced if it is there.
        chunks: For each chunk its groups, as `StreamWriter.append` takes them. A generator draws
            each chunk when the one before is on disk.
        coords: Labels for the entries of named axes, as in `build`.
        attributes: Attributes of the whole object, as in `build`.

    Raises:
        InvalidArgument: If there is no chunk, or a chunk is refused by `StreamWriter.append`.

    Example:
        >>> import tempfile, numpy as np
        >>> from pyro_klmodes.inference_data import read
        >>> chunk = {"posterior": {"mu": Variable(np.zeros((1, 100)))}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_in_chunks(f"{folder}/fit.nc", (chunk for _ in range(3)))
        ...     dict(read(f"{folder}/fit.nc").posterior.sizes)
        {'chain': 1, 'draw': 300}
    """
    writer = StreamWriter(path, coords=coords, attributes=attributes)
    count = 0
    for chunk in chunks:
        writer.append(chunk)
        count += 1
    if not count:
        raise InvalidArgument("chunks hold nothing to write")


def _layout(groups: Mapping[str, xr.Dataset]) -> dict[str, dict[str, tuple[Any, ...]]]:
    """What must not change from chunk to chunk; empty for groups of data."""
    return {
        group: {
            str(name): (
                variable.dims,
                tuple(size for dim, size in variable.sizes.items() if dim != "draw"),
                str(variable.dtype),
            )
            for name, variable in held.data_vars.items()
            if "draw" in variable.dims
        }
        for group, held in groups.items()
    }


def _chunk_shape(variable: xr.Variable) -> tuple[int, ...]:
    sizes = dict(variable.sizes)
    sizes["draw"] = 1
    bytes_per_draw = variable.dtype.itemsize * int(np.prod(list(sizes.values())))
    sizes["draw"] = min(max(CHUNK_BYTES // max(bytes_per_draw, 1), 1), MOST_DRAWS_PER_CHUNK)
    return tuple(max(size, 1) for size in sizes.values())


def _extend(group: h5netcdf.Group, chunk: xr.Dataset) -> None:
    written = group.dimensions["draw"].size
    total = written + chunk.sizes["draw"]
    group.resize_dimension("draw", total)
    group.variables["draw"][written:] = np.arange(written, total)
    for name, variable in chunk.data_vars.items():
        # NetCDF has no booleans; xarray stores them, and finds them again, as bytes.
        values = variable.values.astype(np.int8) if variable.dtype == bool else variable.values
        group.variables[str(name)][:, written:] = values
