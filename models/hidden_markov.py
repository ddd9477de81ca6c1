"""Hidden Markov models with discrete and with Gaussian emissions, fitted by maximum likelihood.

    z_1 ~ Categorical(initial),   z_t ~ Categorical(transition[z_{t-1}]),
    x_t ~ Categorical(emission[z_t])   or   x_t ~ Normal(locs[z_t], scales[z_t])

for a plate of independent series, which may be of different lengths. All of ``initial``,
``transition``, ``emission``, ``locs`` and ``scales`` are parameters. Forward-backward and the
updates of Baum and Welch are in ``hidden_markov_exact``.

Sources: Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech
recognition"; Baum, Petrie, Soules and Weiss (1970), "A maximization technique occurring in the
statistical analysis of probabilistic functions of Markov chains". The data are simulated.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor

__all__ = [
    "Discrete",
    "Gaussian",
    "discrete_model",
    "gaussian_model",
    "simulate_discrete",
    "simulate_gaussian",
    "true_discrete",
    "true_gaussian",
]


class Discrete(NamedTuple):
    """K states and V symbols; any number of models at a time.

    Attributes:
        initial: Shape (*batch, K).
        transition: From (row) to (column), shape (*batch, K, K).
        emission: Shape (*batch, K, V).
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor


class Gaussian(NamedTuple):
    """K states and measurements of D dimensions; any number of models at a time.

    Attributes:
        initial: Shape (*batch, K).
        transition: From (row) to (column), shape (*batch, K, K).
        locs: Shape (*batch, K, D).
        scales: Standard deviations, shape (*batch, K, D).
    """

    initial: Tensor
    transition: Tensor
    locs: Tensor
    scales: Tensor


def discrete_model(
    x: Tensor,  # (S, T), symbols 0, 1, ...
    states: int = 2,
    symbols: int = 3,
    lengths: Tensor | None = None,  # (S,)
) -> None:
    """Sites ``z_0``, ``x_0``, ``z_1``, ... in the plate ``series``.

    Parameters ``initial`` (K,), ``transition`` (K, K) and ``emission`` (K, V) start at chains that
    tend to stay, and at emissions that differ from state to state. With ``lengths``, what comes
    after the end of a series is masked.
    """
    initial, transition = _chain_parameters(x, states)
    tilt = torch.linspace(-1, 1, states)[:, None] * torch.linspace(-1, 1, symbols)
    start = tilt.softmax(-1).to(initial)
    emission = pyro.param("emission", start, constraint=constraints.simplex)
    z = torch.zeros((), dtype=torch.long)
    with pyro.plate("series", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            with _until_the_end(t, lengths):
                before = dist.Categorical(transition[z] if t else initial)
                z = pyro.sample(f"z_{t}", before, infer={"enumerate": "parallel"})
                pyro.sample(f"x_{t}", dist.Categorical(emission[z]), obs=x[:, t])


def gaussian_model(
    x: Tensor,  # (S, T, D)
    states: int = 3,
    lengths: Tensor | None = None,  # (S,)
) -> None:
    """Sites ``z_0``, ``x_0``, ``z_1``, ... in the plate ``series``.

    Parameters ``initial`` (K,), ``transition`` (K, K), ``locs`` (K, D) and ``scales`` (K, D) start
    at chains that tend to stay, and at data spread evenly along the first measurement. Masks are
    as in ``discrete_model``.
    """
    initial, transition = _chain_parameters(x, states)
    points = x.flatten(0, 1)
    ranks = ((torch.arange(states) + 0.5) / states * len(points)).long()
    locs = pyro.param("locs", points[points[:, 0].argsort()[ranks]])
    start = points.std(0).expand(states, -1).clone()
    scales = pyro.param("scales", start, constraint=constraints.positive)
    z = torch.zeros((), dtype=torch.long)
    with pyro.plate("series", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            with _until_the_end(t, lengths):
                before = dist.Categorical(transition[z] if t else initial)
                z = pyro.sample(f"z_{t}", before, infer={"enumerate": "parallel"})
                normal = dist.Normal(locs[z], scales[z]).to_event(1)
                pyro.sample(f"x_{t}", normal, obs=x[:, t])


def _chain_parameters(x: Tensor, states: int) -> tuple[Tensor, Tensor]:
    """A uniform start, and one half more to stay than to go anywhere."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    uniform = torch.full((states,), 1 / states, dtype=dtype)
    stay = (torch.eye(states, dtype=dtype) + uniform) / 2
    initial = pyro.param("initial", uniform, constraint=constraints.simplex)
    return initial, pyro.param("transition", stay, constraint=constraints.simplex)


def _until_the_end(t: int, lengths: Tensor | None) -> AbstractContextManager[Any]:
    if lengths is None:
        return nullcontext()
    masked: AbstractContextManager[Any] = poutine.mask(mask=t < lengths)
    return masked


def true_discrete() -> Discrete:
    """Two states and three symbols.

    Example:
        >>> true_discrete().emission.sum(-1)
        tensor([1., 1.])
    """
    dtype = torch.get_default_dtype()
    return Discrete(
        torch.tensor([0.6, 0.4], dtype=dtype),
        torch.tensor([[0.85, 0.15], [0.25, 0.75]], dtype=dtype),
        torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=dtype),
    )


def true_gaussian() -> Gaussian:
    """Three states in two dimensions.

    Example:
        >>> true_gaussian().locs.shape
        torch.Size([3, 2])
    """
    dtype = torch.get_default_dtype()
    return Gaussian(
        torch.tensor([0.5, 0.3, 0.2], dtype=dtype),
        torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]], dtype=dtype),
        torch.tensor([[-2.0, 0.0], [0.5, 1.5], [2.5, -1.0]], dtype=dtype),
        torch.tensor([[1.0, 0.8], [0.7, 1.0], [0.9, 0.6]], dtype=dtype),
    )


def simulate_discrete(
    series: int = 20,
    length: int = 30,
    *,
    at: Discrete | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:  # (S, T) and (S, T)
    """Symbols and the states behind them, by ``true_discrete`` unless told otherwise.

    Example:
        >>> x, z = simulate_discrete(4, 6)
        >>> x.shape, x.max() < 3, z.max() < 2
        (torch.Size([4, 6]), tensor(True), tensor(True))
    """
    at = true_discrete() if at is None else at
    generator = torch.Generator().manual_seed(seed)
    z = _chains(at.initial, at.transition, series, length, generator)
    x = torch.multinomial(at.emission[z.flatten()], 1, generator=generator)
    return x.reshape(series, length), z


def simulate_gaussian(
    series: int = 20,
    length: int = 30,
    *,
    at: Gaussian | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:  # (S, T, D) and (S, T)
    """Measurements and the states behind them, by ``true_gaussian`` unless told otherwise.

    Example:
        >>> x, z = simulate_gaussian(4, 6)
        >>> x.shape, z.shape
        (torch.Size([4, 6, 2]), torch.Size([4, 6]))
    """
    at = true_gaussian() if at is None else at
    generator = torch.Generator().manual_seed(seed)
    z = _chains(at.initial, at.transition, series, length, generator)
    noise = torch.randn(series, length, at.locs.shape[-1], generator=generator, dtype=at.locs.dtype)
    return at.locs[z] + at.scales[z] * noise, z


def _chains(
    initial: Tensor,  # (K,)
    transition: Tensor,  # (K, K)
    series: int,
    length: int,
    generator: torch.Generator,
) -> Tensor:  # (S, T)
    states = [torch.multinomial(initial, series, replacement=True, generator=generator)]
    for _ in range(length - 1):
        states.append(torch.multinomial(transition[states[-1]], 1, generator=generator)[:, 0])
    return torch.stack(states, -1)
