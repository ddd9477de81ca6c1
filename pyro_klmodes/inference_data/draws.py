"""Inference data from the draws of one guide or of the chains of MCMC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_klmodes.inference_data.structure import SAMPLE_DIMENSIONS, Variable, build

__all__ = ["from_chains", "from_draws", "site_dimensions"]


def from_draws(
    values: Mapping[str, Any],  # {site: (S, *site_shape)}
    log_p: Any,  # (S, *local)
    log_q: Any,  # (S, *local)
    *,
    dimensions: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Inference data with one chain of S draws from a fitted guide.

    The group ``posterior`` holds the draws of every latent site; ``sample_stats`` holds ``log_p``,
    ``log_q`` and ``log_weight = log_p - log_q`` of each whole draw, summed over local plates. With
    these, ``log_p`` and ``log_q`` are what ArviZ's corrections for approximate posteriors ask for.
    The draws come from the guide and are not reweighted.

    Args:
        values: Draws of each site, of shape ``(S, *site_shape)``, as `FitResult.draws` gives
            them: arrays or tensors.
        log_p: Log-density of model and data at each draw, of shape ``(S, *local)``.
        log_q: Log-density of the guide at each draw, of the same shape.
        dimensions: For a site, one name per axis of ``site_shape``, as `site_dimensions` returns
            them. Sites left out get ``<site>_dim_0`` and so on.
        coords: Labels for the entries of named axes.
        attributes: Attributes of the whole object and of its ``posterior`` group, as in `build`.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (ArviZ 1.x).

    Raises:
        InvalidArgument: If a site has another number of axes than ``dimensions`` gives it, and
            whatever else `build` refuses.

    Example:
        >>> import numpy as np
        >>> theta = {"theta": np.zeros((5, 3))}
        >>> data = from_draws(
        ...     theta, np.zeros(5), np.ones(5), dimensions={"theta": ("school",)}
        ... )
        >>> dict(data.posterior.sizes)
        {'chain': 1, 'draw': 5, 'school': 3}
        >>> data.sample_stats["log_weight"].values
        array([[-1., -1., -1., -1., -1.]])
    """
    log_p, log_q = _whole_draw(log_p), _whole_draw(log_q)
    statistics = {"log_p": log_p, "log_q": log_q, "log_weight": log_p - log_q}
    return from_chains(
        {site: _array(value)[None] for site, value in values.items()},
        {name: value[None] for name, value in statistics.items()},
        dimensions=dimensions,
        coords=coords,
        attributes=attributes,
    )


def from_chains(
    values: Mapping[str, Any],  # {site: (C, S, *site_shape)}
    statistics: Mapping[str, Any] | None = None,  # {name: (C, S, *shape)}
    *,
    dimensions: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Inference data of C chains of S draws, such as those of MCMC.

    Args:
        values: Draws of each site, of shape ``(C, S, *site_shape)``.
        statistics: What the sampler recorded at each draw, under ArviZ's names (``diverging``,
            ``acceptance_rate``, ...), of shape ``(C, S)``; becomes the group ``sample_stats``.
        dimensions: For a site or statistic, one name per axis after the first two.
        coords: Labels for the entries of named axes.
        attributes: Attributes of the whole object and of its ``posterior`` group, as in `build`.

    Returns:
        ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (ArviZ 1.x).

    Raises:
        InvalidArgument: As `build`.

    Example:
        >>> import numpy as np
        >>> data = from_chains({"mu": np.zeros((4, 100))}, {"diverging": np.zeros((4, 100), bool)})
        >>> data.sample_stats["diverging"].dtype
        dtype('bool')
    """
    names = dimensions or {}
    return build(
        {
            group: {name: Variable(_array(value), names.get(name)) for name, value in held.items()}
            for group, held in (("posterior", values), ("sample_stats", statistics or {}))
        },
        coords=coords,
        attributes=attributes,
    )


def site_dimensions(guide: Any, values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
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
        names = [f"{site}_dim_{axis}" for axis in range(len(value.shape) - 1)]
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


def _array(value: Any) -> np.ndarray:
    # Tensors may carry gradients or live on another device; they know how to leave both behind.
    return value.numpy(force=True) if hasattr(value, "numpy") else np.asarray(value)


def _whole_draw(log_density: Any) -> np.ndarray:  # (S, *local) -> (S,)
    array = _array(log_density)
    return array.reshape(len(array), -1).sum(1)
