"""Inference data in files: NetCDF, and zarr where that package is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import h5netcdf
import xarray as xr

from pyro_klmodes.inference_data.versions import dataset, group_names, tree

__all__ = ["ENGINE", "read", "write"]

ENGINE: Final = "h5netcdf"
# Version 3 of the zarr format has no agreed way to store text yet.
ZARR_FORMAT: Final = 2


def write(data: Any, path: str | Path) -> None:
    """Write inference data to a file, replacing what is there.

    Args:
        data: Inference data.
        path: A NetCDF file that ``arviz.from_netcdf`` of every version reads, or, if the name
            ends with ``.zarr``, a folder of zarr.

    Raises:
        ImportError: If the name ends with ``.zarr`` and the package zarr is not installed.

    Example:
        >>> import tempfile, numpy as np
        >>> from pyro_klmodes.inference_data import from_chains
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(from_chains({"mu": np.zeros((2, 5))}), f"{folder}/fit.nc")
        ...     group_names(read(f"{folder}/fit.nc"))
        ('posterior',)
    """
    path = Path(path)
    groups = {name: dataset(data, name) for name in group_names(data)}
    whole = xr.Dataset(attrs=data.attrs)
    if _is_zarr(path):
        whole.to_zarr(path, mode="w", zarr_format=ZARR_FORMAT)
        for name, held in groups.items():
            held.to_zarr(path, group=name, mode="a", zarr_format=ZARR_FORMAT)
        return
    whole.to_netcdf(path, mode="w", engine=ENGINE)
    for name, held in groups.items():
        held.to_netcdf(path, group=name, mode="a", engine=ENGINE)


def read(path: str | Path) -> Any:
    """Read inference data from a file of any version of ArviZ, all of it into memory.

    For a file larger than memory take ``arviz.from_netcdf``, which reads what is asked for.

    Args:
        path: A NetCDF file, or a folder of zarr whose name ends with ``.zarr``.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (ArviZ 1.x).

    Raises:
        ImportError: If the name ends with ``.zarr`` and the package zarr is not installed.
        FileNotFoundError: If there is nothing of that name.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if _is_zarr(path):
        import zarr

        names = sorted(zarr.open_group(str(path), mode="r").group_keys())
        options: dict[str, Any] = {"engine": "zarr"}
    else:
        with h5netcdf.File(path, "r") as file:
            names = list(file.groups)
        options = {"engine": ENGINE}
    groups = {name: xr.load_dataset(path, group=name, **options) for name in names}
    return tree(groups, xr.load_dataset(path, **options).attrs)


def _is_zarr(path: Path) -> bool:
    if path.suffix != ".zarr":
        return False
    if importlib.util.find_spec("zarr") is None:
        raise ImportError(
            f"{path.name} is to be zarr, and the package zarr is not installed; pip install zarr, "
            "or take a name that ends with .nc for NetCDF"
        )
    return True
