"""Simulated data of every model, as NumPy arrays, so that torch and JAX see the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.eight_schools import EFFECTS, STANDARD_ERRORS

__all__ = ["ARRAYS", "COUNTIES", "LATENTS", "PIXELS"]

COUNTIES = 85
PIXELS = 784
LATENTS = 20

Arrays = tuple[NDArray, ...]


def eight_schools() -> Arrays:
    """Standard errors and effects, each of shape (8,)."""
    return np.array(STANDARD_ERRORS), np.array(EFFECTS)


def logistic(size: int = 1000, features: int = 25) -> Arrays:
    """Features (size, features) and labels (size,)."""
    random = np.random.default_rng(1)
    x = random.normal(size=(size, features))
    logits = x @ (0.5 * random.normal(size=features)) + 0.3
    return x, _coins(random, logits)


def radon(houses: int = 900) -> Arrays:
    """County, floor and log-radon of every house, each of shape (houses,); no county is empty."""
    random = np.random.default_rng(2)
    county = np.concatenate([np.arange(COUNTIES), random.integers(0, COUNTIES, houses - COUNTIES)])
    floor = (random.uniform(size=houses) < 0.2).astype(float)
    intercepts = 1.5 + 0.4 * random.normal(size=COUNTIES)
    y = intercepts[county] - 0.6 * floor + 0.7 * random.normal(size=houses)
    return county, floor, y


def enumerated(size: int = 500) -> Arrays:
    """Three clusters of different size and width, shape (size,)."""
    random = np.random.default_rng(3)
    component = random.choice(3, size=size, p=[0.3, 0.5, 0.2])
    centres, widths = np.array([-3.0, 0.0, 4.0]), np.array([0.7, 0.5, 1.0])
    return (centres[component] + widths[component] * random.normal(size=size),)


def vae(batch: int = 128) -> Arrays:
    """Binary images of eight factors, shape (batch, pixels)."""
    random = np.random.default_rng(4)
    logits = random.normal(size=(batch, 8)) @ (0.8 * random.normal(size=(8, PIXELS))) - 1.0
    return (_coins(random, logits),)


def hmm(length: int = 20) -> Arrays:
    """A path over three states that tends to stay, seen with noise; shape (length,)."""
    random = np.random.default_rng(5)
    state, states = 0, []
    for _ in range(length):
        state = state if random.uniform() < 0.8 else int(random.integers(3))
        states.append(state)
    return (np.array([-3.0, 0.0, 3.0])[states] + random.normal(size=length),)


def state_space(length: int = 100) -> Arrays:
    """A random walk seen with noise, shape (length,)."""
    random = np.random.default_rng(6)
    return ((0.5 * random.normal(size=length)).cumsum() + random.normal(size=length),)


def _coins(random: np.random.Generator, logits: NDArray) -> NDArray:
    return (random.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


ARRAYS: dict[str, Callable[[], Arrays]] = {
    "eight schools": eight_schools,
    "mixture potential": tuple,
    "logistic regression": logistic,
    "radon": radon,
    "enumerated mixture": enumerated,
    "autoencoder": vae,
    "hidden Markov, T = 20": hmm,
    "state space, T = 100": state_space,
}
