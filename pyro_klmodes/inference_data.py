"""ArviZ from a variational fit: the only file that imports ``arviz``.

Everything another file needs from ArviZ goes through a function here, so that a change of ArviZ's
interface is a change of this file and of no other.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

with warnings.catch_warnings(record=True) as _import_warnings:
    # ArviZ announces its coming version with a FutureWarning once a day, whatever the caller does.
    # Under "warnings are errors" that announcement would make the import itself fail.
    warnings.simplefilter("always")
    import arviz as az

for _warning in _import_warnings:
    if "ArviZ is undergoing a major refactor" not in str(_warning.message):
        warnings.warn_explicit(
            _warning.message, _warning.category, _warning.filename, _warning.lineno
        )

__all__ = [
    "density_curve",
    "from_draws",
    "highest_density_intervals",
    "read",
    "site_dimensions",
    "site_draws",
    "write",
]

ENGINE = "h5netcdf"
SAMPLE_DIMENSIONS = ("chain", "draw")


def from_draws(
    values: Mapping[str, Tensor],  # {site: (S, *site_shape)}
    log_p: Tensor,  # (S, *local)
    log_q: Tensor,  # (S, *local)
    *,
    dimensions: Mapping[str, tuple[str, ...]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """ArviZ inference data with one chain of S draws from a fitted guide.

    The group ``posterior`` holds the draws of every latent site; ``sample_stats`` holds ``log_p``,
    ``log_q`` and ``log_weight = log_p - log_q`` of each whole draw, summed over local plates. With
    these, ``log_p`` and ``log_q`` are what ArviZ's corrections for approximate posteriors ask for.
    The draws come from the guide and are not reweighted.

    Args:
        values: Draws of each site, of shape ``(S, *site_shape)``, as `FitResult.draws` gives
            them.
        log_p: Log-density of model and data at each draw, of shape ``(S, *local)``.
        log_q: Log-density of the guide at each draw, of the same shape.
        dimensions: For a site, one name per axis of ``site_shape``, as `site_dimensions` returns
            them. Sites left out get ``<site>_dim_0`` and so on.
        attributes: Attributes of the whole object and of its ``posterior`` group. Numbers, strings
            and None are kept as they are (None becomes an empty string); anything else is JSON.

    Returns:
        ``arviz.InferenceData`` with the groups ``posterior`` and ``sample_stats``.

    Raises:
        ValueError: If a site has another number of axes than ``dimensions`` gives it.

    Example:
        >>> import torch
        >>> theta = {"theta": torch.zeros(5, 3)}
        >>> data = from_draws(
        ...     theta, torch.zeros(5), torch.ones(5), dimensions={"theta": ("school",)}
        ... )
        >>> dict(data.posterior.sizes)
        {'chain': 1, 'draw': 5, 'school': 3}
        >>> data.sample_stats["log_weight"].values
        array([[-1., -1., -1., -1., -1.]], dtype=float32)
    """
    posterior = {}
    for site, value in values.items():
        axes = (dimensions or {}).get(site) or _own_dimensions(site, value.dim() - 1)
        posterior[site] = ((*SAMPLE_DIMENSIONS, *axes), _one_chain(value))
    log_p, log_q = _whole_draw(log_p), _whole_draw(log_q)
    statistics = {"log_p": log_p, "log_q": log_q, "log_weight": log_p - log_q}
    groups = {
        "posterior": _dataset(posterior),
        "sample_stats": _dataset(
            {name: (SAMPLE_DIMENSIONS, _one_chain(value)) for name, value in statistics.items()}
        ),
    }
    plain = {name: _attribute(value) for name, value in (attributes or {}).items()}
    # ArviZ's own tools look at the posterior group, people at the whole object.
    groups["posterior"].attrs.update(plain)
    return az.InferenceData(attrs=plain, **groups)


def site_dimensions(guide: Any, values: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Names for the axes of each latent site: its plates, else ``<site>_dim_<axis>``.

    Args:
        guide: A guide; Pyro's autoguides know the plates of their sites, from any other guide
            every axis gets the name ``<site>_dim_<axis>``.
        values: Draws of each site, of shape ``(S, *site_shape)``.

    Returns:
        One tuple of ``len(site_shape)`` names per site. A plate's name is used for one size only
        and never when it is also the name of a site, because xarray would take the two as one.
    """
    trace = getattr(guide, "prototype_trace", None)
    nodes = trace.nodes if trace is not None else {}
    sizes: dict[str, int] = {}
    named = {}
    for site, value in values.items():
        names = list(_own_dimensions(site, value.dim() - 1))
        node = nodes.get(site)
        event_dim = node["fn"].event_dim if node is not None else 0
        for frame in node["cond_indep_stack"] if node is not None else ():
            axis = len(names) - event_dim + frame.dim if frame.vectorized else -1
            taken = frame.name in values or frame.name in SAMPLE_DIMENSIONS
            if axis < 0 or taken:
                continue
            if sizes.setdefault(frame.name, value.shape[axis + 1]) == value.shape[axis + 1]:
                names[axis] = frame.name
        named[site] = tuple(names)
    return named


def write(data: Any, path: Path) -> None:
    """Write inference data to a NetCDF file that ``arviz.from_netcdf`` reads."""
    data.to_netcdf(str(path), engine=ENGINE)


def read(path: Path) -> Any:
    """Read inference data from a NetCDF file."""
    return az.from_netcdf(str(path), engine=ENGINE)


def site_draws(data: Any) -> dict[str, np.ndarray]:  # {site: (S, *site_shape)}
    """The posterior draws of every site, all chains after one another."""
    return {
        str(site): np.concatenate(variable.values, axis=0)
        for site, variable in data.posterior.data_vars.items()
    }


def highest_density_intervals(
    data: Any, probability: float
) -> dict[str, np.ndarray]:  # {site: (*site_shape, 2)}
    """For every site the shortest interval that holds ``probability`` of its draws."""
    intervals = az.hdi(data.posterior, hdi_prob=probability)
    return {str(site): variable.values for site, variable in intervals.data_vars.items()}


def density_curve(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (S,) -> (G,), (G,)
    """A kernel estimate of the density of one real variable: a grid and the density on it."""
    # Standardised in double precision: bins of a narrow float32 sample would be narrower than its
    # resolution.
    mean, sd = draws.mean(dtype=np.float64), draws.std(dtype=np.float64)
    grid, density = az.kde((draws.astype(np.float64) - mean) / sd)
    return mean + sd * grid, density / sd


def _own_dimensions(site: str, count: int) -> tuple[str, ...]:
    return tuple(f"{site}_dim_{axis}" for axis in range(count))


def _whole_draw(log_density: Tensor) -> Tensor:  # (S, *local) -> (S,)
    return log_density.reshape(log_density.shape[0], -1).sum(1)


def _one_chain(value: Tensor) -> np.ndarray:  # (S, *shape) -> (1, S, *shape)
    return value.detach().cpu().numpy()[None]


def _dataset(variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
    sizes = {
        name: size
        for names, value in variables.values()
        for name, size in zip(names, value.shape, strict=True)
    }
    return xr.Dataset(variables, coords={name: np.arange(size) for name, size in sizes.items()})


def _attribute(value: Any) -> str | int | float:
    if value is None:
        return ""
    # NetCDF has no booleans; as JSON they stay readable.
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    return json.dumps(value)
