"""Tables and curves of draws, with the same names and numbers whatever the version of ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference_data.structure import SAMPLE_DIMENSIONS
from pyro_klmodes.inference_data.versions import az, dataset, density, group_names, intervals

__all__ = ["density_curve", "highest_density_intervals", "numeric", "site_draws", "summary"]

FEWEST_DRAWS = 4  # what ArviZ's effective sample size asks of every chain


def summary(
    data: Any,
    *,
    probability: float = 0.94,
    interval: Literal["hdi", "eti"] = "hdi",
    names: Sequence[str] | None = None,
    group: str = "posterior",
) -> pd.DataFrame:
    """Moments, interval and quality of the draws of every parameter, unrounded.

    The effective sample sizes and Monte Carlo standard errors are about dependence between draws.
    Draws of a guide are independent, so there they are close to the number of draws, and say
    nothing about how far the guide is from the posterior.

    Args:
        data: Inference data.
        probability: What the interval holds of the draws.
        interval: ``"hdi"``, the shortest interval that holds them, or ``"eti"``, which leaves
            equally many out on either side.
        names: The variables of the table; None for all.
        group: The group of draws to summarise.

    Returns:
        One row per parameter, named like ``theta[Choate]``, and the columns ``mean``, ``sd``,
        ``hdi_lower``, ``hdi_upper`` (or ``eti_lower``, ``eti_upper``), ``mcse_mean``, ``mcse_sd``,
        ``ess_bulk`` and ``ess_tail``; with more than one chain also ``r_hat``. A parameter that is
        constant has NaN where nothing is defined (``mcse_sd``, ``r_hat``). The versions of ArviZ
        take quantiles of a short sample differently: ``ess_tail`` of 100 draws may differ by a
        fifth between them.

    Raises:
        InvalidArgument: If the group or a variable does not exist, ``probability`` is not between 0
            and 1, ``interval`` is another word, there are fewer than 4 draws per chain, or draws
            are NaN or infinite.

    Source:
        Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021) for the effective sample sizes and
        R-hat.

    Example:
        >>> import numpy as np
        >>> from pyro_klmodes.inference_data import from_chains
        >>> data = from_chains({"mu": np.linspace(0.0, 2.0, 201)[None]})
        >>> summary(data, probability=0.5, interval="eti").iloc[:, :4].round(2)
            mean    sd  eti_lower  eti_upper
        mu   1.0  0.58        0.5        1.5
    """
    if not 0.0 < probability < 1.0:
        raise InvalidArgument(f"probability must lie between 0 and 1, not {probability}")
    if interval not in ("hdi", "eti"):
        raise InvalidArgument(f"interval must be 'hdi' or 'eti', not {interval!r}")
    if group not in group_names(data):
        raise InvalidArgument(f"there is no group {group!r}, only {', '.join(group_names(data))}")
    draws = numeric(dataset(data, group))
    if "draw" not in draws.sizes:
        raise InvalidArgument(f"group {group!r} holds data, not draws")
    if unknown := sorted(set(names or ()) - set(draws.data_vars)):
        raise InvalidArgument(f"group {group!r} has no variable {', '.join(unknown)}")
    draws = draws[list(names)] if names is not None else draws
    if draws.sizes["draw"] < FEWEST_DRAWS:
        raise InvalidArgument(f"a summary needs {FEWEST_DRAWS} draws, not {draws.sizes['draw']}")
    if broken := [str(n) for n, v in draws.data_vars.items() if not np.isfinite(v).all()]:
        raise InvalidArgument(f"draws of {', '.join(broken)} hold NaN or infinite values")
    with np.errstate(invalid="ignore"):  # constants, whose ratios of spreads are 0 / 0
        columns = _columns(draws, probability, interval)
    rows = [
        label for name, variable in columns["mean"].data_vars.items() for label in _rows(variable)
    ]
    cells = {
        name: np.concatenate([column[variable].values.ravel() for variable in draws.data_vars])
        for name, column in columns.items()
    }
    return pd.DataFrame(cells, index=rows)


def site_draws(data: Any) -> dict[str, np.ndarray]:  # {site: (S, *site_shape)}
    """The posterior draws of every site, all chains after one another."""
    return {
        str(site): np.concatenate(variable.values, axis=0)
        for site, variable in dataset(data, "posterior").data_vars.items()
    }


def highest_density_intervals(
    data: Any, probability: float
) -> dict[str, np.ndarray]:  # {site: (*site_shape, 2)}
    """For every site the shortest interval that holds ``probability`` of its draws."""
    found = intervals(numeric(dataset(data, "posterior")), probability)
    return {str(site): variable.values for site, variable in found.data_vars.items()}


def density_curve(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (S,) -> (G,), (G,)
    """A kernel estimate of the density of one real variable: a grid and the density on it."""
    # Standardised in double precision: bins of a narrow float32 sample would be narrower than its
    # resolution.
    mean, sd = draws.mean(dtype=np.float64), draws.std(dtype=np.float64)
    grid, curve = density((draws.astype(np.float64) - mean) / sd)
    return mean + sd * grid, curve / sd


def numeric(draws: xr.Dataset) -> xr.Dataset:
    """The same with booleans as 0 and 1: ArviZ takes differences of draws."""
    return draws.map(lambda variable: variable.astype(int) if variable.dtype == bool else variable)


def _columns(draws: xr.Dataset, probability: float, interval: str) -> dict[str, xr.Dataset]:
    lower, upper = _interval(draws, probability, interval)
    columns = {
        "mean": draws.mean(SAMPLE_DIMENSIONS),
        "sd": draws.std(SAMPLE_DIMENSIONS, ddof=1),
        f"{interval}_lower": lower,
        f"{interval}_upper": upper,
        "mcse_mean": az.mcse(draws, method="mean"),
        "mcse_sd": az.mcse(draws, method="sd"),
        "ess_bulk": az.ess(draws, method="bulk"),
        "ess_tail": az.ess(draws, method="tail"),
    }
    if draws.sizes["chain"] > 1:
        columns["r_hat"] = az.rhat(draws)
    return columns


def _interval(
    draws: xr.Dataset, probability: float, interval: str
) -> tuple[xr.Dataset, xr.Dataset]:
    if interval == "hdi":
        found = intervals(draws, probability)
        return found.isel(bound=0, drop=True), found.isel(bound=1, drop=True)
    outside = (1.0 - probability) / 2.0
    bounds = draws.quantile([outside, 1.0 - outside], SAMPLE_DIMENSIONS)
    return bounds.isel(quantile=0, drop=True), bounds.isel(quantile=1, drop=True)


def _rows(variable: xr.DataArray) -> list[str]:
    """``theta[Choate, 0]`` for every element of ``theta``, in the order of its values."""
    if not variable.dims:
        return [str(variable.name)]
    labels = [variable[dim].values for dim in variable.dims]
    return [
        f"{variable.name}[{', '.join(str(of[i]) for of, i in zip(labels, entry, strict=True))}]"
        for entry in np.ndindex(*variable.shape)
    ]
