"""NumPyro: ``svi.update`` in a compiled ``lax.scan``, which is what ``SVI.run`` does.

NumPyro has no forward divergence. Its cells are written directly in JAX around NumPyro's density of
the model, in the same compiled loop with the same optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import Bernoulli, Normal
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from numpyro.infer.util import initialize_model

from benchmarks.engine.cell import AMORTISED, FULL_RANK, MEAN_FIELD, Cell
from benchmarks.engine.problems import in_numpyro as models
from benchmarks.engine.problems.hand_guides import SCALE, softplus_inverse
from benchmarks.engine.run import Run

__all__ = ["build", "forward_kl_for", "svi_for", "warm_up"]

Update = Callable[[Any, Any], tuple[Any, Array]]  # a body of lax.scan


def build(cell: Cell) -> Run:
    """The loop, compiled for a fixed number of steps."""
    update, state = _forward_kl(cell) if cell.objective == "forward KL" else _svi(cell)
    # Python numbers in the initial state would have the loop compiled a second time.
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)

    # Data are constants of the compiled loop, as in SVI.run.
    loop = jax.jit(lambda state: jax.lax.scan(update, state, None, length=cell.scan_length))

    def block(steps: int) -> float:
        nonlocal state
        for _ in range(steps // cell.scan_length):
            state, losses = loop(state)
        return float(losses[-1])

    return Run(block, cell.scan_length)


def svi_for(cell: Cell) -> SVI:
    """NumPyro's own inference."""
    if cell.objective == "IWAE":
        loss = RenyiELBO(alpha=0.0, num_particles=cell.particles)
    elif _enumerates(cell):
        loss = TraceEnum_ELBO(num_particles=cell.particles)
    else:
        loss = Trace_ELBO(num_particles=cell.particles)
    return SVI(*_pair(cell), numpyro.optim.Adam(cell.learning_rate), loss)


def _pair(cell: Cell) -> tuple[Callable, Callable]:
    if cell.guide == AMORTISED:
        return models.autoencoder_model, models.autoencoder_guide
    if _enumerates(cell):
        model = models.MODELS[cell.model]
        return model, AutoNormal(handlers.block(model, hide=["z"]))
    model = models.MARGINAL[cell.model]
    return model, (AutoNormal if cell.guide == MEAN_FIELD else AutoMultivariateNormal)(model)


def _enumerates(cell: Cell) -> bool:
    """NumPyro enumerates under its ELBO, but not beside AutoMultivariateNormal and a plate."""
    described = (cell.model, cell.objective, cell.guide)
    return described == ("enumerated mixture", "ELBO", MEAN_FIELD)


def _svi(cell: Cell) -> tuple[Update, Any]:
    data = models.arguments(cell.model)
    svi = svi_for(cell)
    return lambda state, _: svi.update(state, *data), svi.init(jax.random.PRNGKey(0), *data)


def forward_kl_for(cell: Cell) -> tuple[dict[str, Any], Callable[..., Array]]:
    """Initial parameters, and the loss as a function of parameters and one key per particle."""
    data = models.arguments(cell.model)
    return _amortised(data) if cell.guide == AMORTISED else _flat(cell, data)


def _forward_kl(cell: Cell) -> tuple[Update, Any]:
    parameters, loss = forward_kl_for(cell)
    optimizer = numpyro.optim.Adam(cell.learning_rate)

    def update(state: tuple[Any, Array], _: None) -> tuple[tuple[Any, Array], Array]:
        optimizing, key = state
        key, use = jax.random.split(key)
        keys = jax.random.split(use, cell.particles)
        value, gradient = jax.value_and_grad(loss)(optimizer.get_params(optimizing), keys)
        return (optimizer.update(gradient, optimizing), key), value

    return update, (optimizer.init(parameters), jax.random.PRNGKey(1))


def _wake(log_p: Array, log_q: Array) -> Array:
    weights = jax.nn.softmax(jax.lax.stop_gradient(log_p - log_q), 0)
    return -(weights * (log_p + log_q)).sum()


def _flat(cell: Cell, data: tuple[Array, ...]) -> tuple[Any, Callable[..., Array]]:
    """A normal guide of one vector, and its loss at the keys of K particles."""
    model = models.MARGINAL[cell.model]
    initial = initialize_model(
        jax.random.PRNGKey(0), model, model_args=data, dynamic_args=False, validate_grad=False
    )
    vector, unravel = ravel_pytree(initial.param_info.z)
    size = vector.shape[0]
    parameters = {"loc": jnp.zeros(size), "scale": jnp.full(size, softplus_inverse(SCALE))}
    if cell.guide == FULL_RANK:
        parameters["lower"] = jnp.zeros((size, size))

    def log_q(parameters: dict[str, Array], z: Array) -> Array:
        scale = jax.nn.softplus(parameters["scale"])
        standard = (z - parameters["loc"]) / scale
        if cell.guide == FULL_RANK:
            unit = jnp.tril(parameters["lower"], -1)
            standard = jax.scipy.linalg.solve_triangular(
                unit, standard.T, lower=True, unit_diagonal=True
            ).T
        return Normal().log_prob(standard).sum(-1) - jnp.log(scale).sum()

    def loss(parameters: dict[str, Array], keys: Array) -> Array:
        noise = jax.vmap(partial(jax.random.normal, shape=(size,)))(keys)
        if cell.guide == FULL_RANK:
            noise = noise + noise @ jnp.tril(parameters["lower"], -1).T
        z = parameters["loc"] + jax.nn.softplus(parameters["scale"]) * noise
        z = jax.lax.stop_gradient(z)
        log_p = -jax.vmap(lambda one: initial.potential_fn(unravel(one)))(z)
        return _wake(log_p, log_q(parameters, z))

    return parameters, loss


def _amortised(data: tuple[Array, ...]) -> tuple[Any, Callable[..., Array]]:
    (x,) = data

    def loss(parameters: dict[str, Any], keys: Array) -> Array:
        mean, width = models.encode(parameters["encoder"], x)
        noise = jax.vmap(partial(jax.random.normal, shape=mean.shape))(keys)
        z = jax.lax.stop_gradient(mean + width * noise)
        log_q = Normal(mean, width).log_prob(z).sum(-1)
        pixels = Bernoulli(logits=models.decode(parameters["decoder"], z)).log_prob(x).sum(-1)
        return _wake(Normal().log_prob(z).sum(-1) + pixels, log_q)

    return models.start(), loss


def warm_up() -> None:
    """What JAX and NumPyro do once per process."""
    build(Cell("mixture potential", MEAN_FIELD, "ELBO", 1)).block(2000)
