"""NumPyro's losses at given parameters, to compare with those by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from benchmarks.engine.cell import AMORTISED, MEAN_FIELD, Cell
from benchmarks.engine.contestants.hand_losses import bump
from benchmarks.engine.contestants.in_numpyro import forward_kl_for, svi_for
from benchmarks.engine.problems.data import LATENTS
from benchmarks.engine.problems.in_numpyro import arguments

__all__ = ["sample"]


def sample(cell: Cell, count: int) -> tuple[list[float], list[float]]:
    """Losses of so many steps that stay put, and their slopes as the guide's mean moves."""
    parameters, loss = _written(cell) if cell.objective == "forward KL" else _own(cell)
    here, way = _at_bump(cell, parameters)

    def one(key: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda p: loss(p, key), (here,), (way,))

    losses, slopes = jax.lax.map(one, jax.random.split(jax.random.PRNGKey(2), count))
    return losses.tolist(), slopes.tolist()


def _own(cell: Cell) -> tuple[dict[str, Any], Callable[..., Array]]:
    data = arguments(cell.model)
    svi = svi_for(cell)
    parameters = svi.get_params(svi.init(jax.random.PRNGKey(0), *data))
    return parameters, lambda p, key: svi.loss.loss(key, p, svi.model, svi.guide, *data)


def _written(cell: Cell) -> tuple[dict[str, Any], Callable[..., Array]]:
    parameters, loss = forward_kl_for(cell)
    return parameters, lambda p, key: loss(p, jax.random.split(key, cell.particles))


def _at_bump(cell: Cell, start: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    way = jax.tree.map(jnp.zeros_like, start)
    if cell.guide == AMORTISED:
        weights, _ = way["encoder"]["mean"]
        encoder = way["encoder"] | {"mean": (weights, jnp.asarray(bump(LATENTS).numpy()))}
        return start, way | {"encoder": encoder}
    means = _means(cell, start)
    return start | means, way | means


def _means(cell: Cell, start: dict[str, Any]) -> dict[str, Array]:
    """The guide's mean by the names of its parameters."""
    svi = svi_for(Cell(cell.model, MEAN_FIELD, "IWAE", 1))
    by_site = svi.get_params(svi.init(jax.random.PRNGKey(0), *arguments(cell.model)))
    sites = svi.guide.prototype_trace.items()
    names = [f"{name}_auto_loc" for name, _ in sites if f"{name}_auto_loc" in by_site]
    shapes = [by_site[name].shape for name in names]
    sizes = [by_site[name].size for name in names]
    parts = bump(sum(sizes)).split(sizes)
    values = {
        name: jnp.asarray(part.numpy()).reshape(shape)
        for name, shape, part in zip(names, shapes, parts, strict=True)
    }
    if names[0] in start:
        return values
    if "auto_loc" in start:  # NumPyro keeps the order of the sites
        return {"auto_loc": ravel_pytree(list(values.values()))[0]}
    return {"loc": ravel_pytree(values)[0]}  # ours is JAX's: by name
