"""Every model in NumPyro. Nothing else in this folder imports JAX but `contestants.in_numpyro`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.control_flow import scan

from benchmarks.engine.problems.autoencoder import Autoencoder
from benchmarks.engine.problems.data import ARRAYS, COUNTIES, LATENTS
from benchmarks.engine.problems.in_pyro import MEANS, SHARES, WIDTH

__all__ = [
    "MARGINAL",
    "MODELS",
    "arguments",
    "autoencoder_guide",
    "autoencoder_model",
    "decode",
    "encode",
    "start",
]

Model = Callable[..., Any]


def eight_schools(sigma: Array, y: Array) -> None:
    """Non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def mixture_potential() -> None:
    """A mixture of three normals in the plane, as a factor."""
    z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1).mask(False))
    squares = ((z[..., None, :] - jnp.array(MEANS)) ** 2).sum(-1)
    logits = jnp.log(jnp.array(SHARES)) - 0.5 * squares / WIDTH**2
    numpyro.factor("potential", jax.nn.logsumexp(logits, -1))


def logistic(x: Array, y: Array) -> None:
    """Logistic regression."""
    b = numpyro.sample("b", dist.Normal(0.0, 5.0))
    w = numpyro.sample("w", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w + b), obs=y)


def radon(county: Array, floor: Array, y: Array) -> None:
    """An intercept for every county."""
    mu_a = numpyro.sample("mu_a", dist.Normal(0.0, 10.0))
    sigma_a = numpyro.sample("sigma_a", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma_y = numpyro.sample("sigma_y", dist.HalfNormal(1.0))
    with numpyro.plate("counties", COUNTIES):
        a = numpyro.sample("a", dist.Normal(mu_a, sigma_a))
    with numpyro.plate("houses", county.shape[0]):
        numpyro.sample("y", dist.Normal(a[county] + beta * floor, sigma_y), obs=y)


def _clusters() -> tuple[Array, Array, Array]:
    """Weights, and for each of three clusters its mean and width."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("clusters", 3):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    return weights, mu, sigma


def enumerated(x: Array) -> None:
    """A mixture whose assignments are summed out."""
    weights, mu, sigma = _clusters()
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(mu[z], sigma[z]), obs=x)


def marginal(x: Array) -> None:
    """The same with the sum written out, for the losses of NumPyro's that do not enumerate."""
    weights, mu, sigma = _clusters()
    with numpyro.plate("data", x.shape[0]):
        mixture = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(mu, sigma))
        numpyro.sample("x", mixture, obs=x)


def hmm(y: Array) -> None:
    """A hidden Markov chain over three states; the sum over paths is a loop in JAX."""
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((3, 3))).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(jnp.zeros(3), 3.0).to_event(1))
    log_p = jnp.log(transition)
    of_data = dist.Normal(loc, 1.0).log_prob(y[:, None])

    def move(forward: Array, seen: Array) -> tuple[Array, None]:
        return jax.nn.logsumexp(forward[:, None] + log_p, 0) + seen, None

    forward, _ = jax.lax.scan(move, log_p[0] + of_data[0], of_data[1:])
    numpyro.factor("paths", jax.nn.logsumexp(forward))


def state_space(y: Array) -> None:
    """A random walk seen with noise, as NumPyro's own loop."""
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    x0 = numpyro.sample("x0", dist.Normal(0.0, 1.0))

    def move(x: Array, seen: Array) -> tuple[Array, None]:
        x = numpyro.sample("x", dist.Normal(x, s))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=seen)
        return x, None

    scan(move, x0, y)


MODELS: dict[str, Model] = {
    "eight schools": eight_schools,
    "mixture potential": mixture_potential,
    "logistic regression": logistic,
    "radon": radon,
    "enumerated mixture": enumerated,
    "hidden Markov, T = 20": hmm,
    "state space, T = 100": state_space,
}

MARGINAL: dict[str, Model] = MODELS | {"enumerated mixture": marginal}


def arguments(model: str) -> tuple[Array, ...]:
    """The data of a model."""
    return tuple(map(jnp.asarray, ARRAYS[model]()))


def start() -> dict[str, dict[str, tuple[Array, Array]]]:
    """The autoencoder's initial weights: those of the torch networks."""
    networks = Autoencoder()
    return {
        name: {
            layer: tuple(jnp.asarray(p.detach().numpy().T) for p in linear.parameters())
            for layer, linear in network.named_children()
        }
        for name, network in (("decoder", networks.decoder), ("encoder", networks.encoder))
    }


def _linear(weights: tuple[Array, Array], x: Array) -> Array:
    return x @ weights[0] + weights[1]


def encode(weights: dict[str, tuple[Array, Array]], x: Array) -> tuple[Array, Array]:
    """Mean and width of every latent."""
    hidden = jax.nn.softplus(_linear(weights["hidden"], x))
    return _linear(weights["mean"], hidden), jnp.exp(_linear(weights["log_width"], hidden))


def decode(weights: dict[str, tuple[Array, Array]], z: Array) -> Array:
    """Logits of the pixels."""
    return _linear(weights["logits"], jax.nn.softplus(_linear(weights["hidden"], z)))


def autoencoder_model(x: Array) -> None:
    """Standard normal latents, independent pixels."""
    weights = numpyro.param("decoder", lambda _: start()["decoder"])
    with numpyro.plate("batch", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENTS), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(weights, z)).to_event(1), obs=x)


def autoencoder_guide(x: Array) -> None:
    """Independent normals."""
    weights = numpyro.param("encoder", lambda _: start()["encoder"])
    with numpyro.plate("batch", x.shape[0]):
        numpyro.sample("z", dist.Normal(*encode(weights, x)).to_event(1))
