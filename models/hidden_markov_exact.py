"""Forward-backward for hidden Markov models, in logarithms, and the updates of Baum and Welch.

With ``e_tk = log p(x_t | z_t = k)`` and everything beyond the end of a series left out,

    a_tk = log sum_j exp(a_{t-1,j} + log transition_jk) + e_tk       = log p(x_1..t, z_t = k)
    b_tk = log sum_j exp(log transition_kj + e_{t+1,j} + b_{t+1,j})  = log p(x_t+1..T | z_t = k)

The probabilities of states and of pairs of them follow, and EM divides their sums: transitions are
the expected number of passages from one state to another by that of passages from the one.

Sources: Baum, Petrie, Soules and Weiss (1970); Rabiner (1989), section III.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.hidden_markov import Discrete, Gaussian

__all__ = [
    "Smoothed",
    "discrete_step",
    "forward_backward",
    "gaussian_step",
    "log_emission",
    "random_discrete",
    "random_gaussian",
]


@dataclass(frozen=True)
class Smoothed:
    """What all of a series says about its states; zero beyond its end.

    Attributes:
        log_likelihood: Of every series, shape (*batch, S).
        marginals: Probabilities of states, shape (*batch, S, T, K).
        pairs: Probabilities of neighbouring states, shape (*batch, S, T - 1, K, K).
    """

    log_likelihood: Tensor
    marginals: Tensor
    pairs: Tensor


def log_emission(
    at: Discrete | Gaussian,
    x: Tensor,  # (S, T) or (S, T, D)
) -> Tensor:  # (*batch, S, T, K)
    """``log p(x_t | z_t = k)``."""
    if isinstance(at, Discrete):
        return at.emission.log().mT[..., x, :]
    normal = torch.distributions.Normal(at.locs[..., None, None, :, :], _outside(at.scales))
    return normal.log_prob(x[..., None, :]).sum(-1)


def _outside(parameter: Tensor) -> Tensor:  # (*batch, K, D) -> (*batch, 1, 1, K, D)
    return parameter[..., None, None, :, :]


def forward_backward(
    at: Discrete | Gaussian,
    x: Tensor,  # (S, T) or (S, T, D)
    lengths: Tensor | None = None,  # (S,)
) -> Smoothed:
    """Exact inference in ``T K^2`` operations for every series.

    Example:
        >>> from models.hidden_markov import simulate_discrete, true_discrete
        >>> smoothed = forward_backward(true_discrete(), simulate_discrete(4, 6)[0])
        >>> smoothed.log_likelihood.shape, smoothed.marginals.shape, smoothed.pairs.shape
        (torch.Size([4]), torch.Size([4, 6, 2]), torch.Size([4, 5, 2, 2]))
    """
    emitted = log_emission(at, x)
    transition = at.transition.log()[..., None, :, :]  # (*batch, 1, K, K)
    series, steps = x.shape[:2]
    ends = torch.full((series,), steps) if lengths is None else lengths
    inside = (torch.arange(steps) < ends[:, None])[..., None]  # (S, T, 1)

    forward = [at.initial.log()[..., None, :] + emitted[..., 0, :]]
    for t in range(1, steps):
        before = (forward[-1][..., None] + transition).logsumexp(-2)
        forward.append(torch.where(inside[:, t], before + emitted[..., t, :], forward[-1]))
    backward = [torch.zeros_like(forward[0])]
    for t in range(steps - 1, 0, -1):
        after = (transition + (emitted[..., t, :] + backward[-1])[..., None, :]).logsumexp(-1)
        backward.append(torch.where(inside[:, t], after, backward[-1]))
    a, b = torch.stack(forward, -2), torch.stack(backward[::-1], -2)  # (*batch, S, T, K)

    total = forward[-1].logsumexp(-1)
    marginals = (a + b - total[..., None, None]).exp() * inside
    following = (emitted + b)[..., 1:, None, :]
    pairs = a[..., :-1, :, None] + transition[..., None, :, :] + following
    pairs = (pairs - total[..., None, None, None]).exp() * inside[:, 1:, :, None]
    return Smoothed(total, marginals, pairs)


def discrete_step(
    at: Discrete,
    x: Tensor,  # (S, T)
    lengths: Tensor | None = None,  # (S,)
) -> tuple[Discrete, Tensor]:  # the next model; (*batch)
    """One step of EM, and the log-likelihood of all series before it.

    Example:
        >>> from models.hidden_markov import simulate_discrete
        >>> x, _ = simulate_discrete()
        >>> at = random_discrete(2, 3, starts=5)
        >>> after, before = discrete_step(at, x)
        >>> bool((discrete_step(after, x)[1] > before).all())
        True
    """
    smoothed = forward_backward(at, x, lengths)
    symbols = torch.nn.functional.one_hot(x, at.emission.shape[-1]).to(at.emission)
    emission = torch.einsum("...stk,stv->...kv", smoothed.marginals, symbols)
    emission = emission / emission.sum(-1, keepdim=True)
    return Discrete(*_next_chain(smoothed), emission), smoothed.log_likelihood.sum(-1)


def gaussian_step(
    at: Gaussian,
    x: Tensor,  # (S, T, D)
    lengths: Tensor | None = None,  # (S,)
) -> tuple[Gaussian, Tensor]:  # the next model; (*batch)
    """One step of EM, and the log-likelihood of all series before it.

    Example:
        >>> from models.hidden_markov import simulate_gaussian
        >>> x, _ = simulate_gaussian()
        >>> at = random_gaussian(x, 3, starts=5)
        >>> after, before = gaussian_step(at, x)
        >>> bool((gaussian_step(after, x)[1] > before).all())
        True
    """
    smoothed = forward_backward(at, x, lengths)
    r = smoothed.marginals
    sizes = r.sum((-3, -2))[..., None]
    locs = torch.einsum("...stk,std->...kd", r, x) / sizes
    squares = (x[..., None, :] - _outside(locs)).square()
    scales = (torch.einsum("...stk,...stkd->...kd", r, squares) / sizes).sqrt()
    return Gaussian(*_next_chain(smoothed), locs, scales), smoothed.log_likelihood.sum(-1)


def _next_chain(smoothed: Smoothed) -> tuple[Tensor, Tensor]:
    passages = smoothed.pairs.sum((-4, -3))
    initial = smoothed.marginals[..., 0, :].mean(-2)
    return initial, passages / passages.sum(-1, keepdim=True)


def _random_chains(
    states: int, starts: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Rows of uniform numbers, normalised, with as much again for staying."""
    initial = torch.rand(starts, states, generator=generator, dtype=dtype)
    transition = torch.rand(starts, states, states, generator=generator, dtype=dtype)
    transition = transition / transition.sum(-1, keepdim=True) + torch.eye(states, dtype=dtype)
    return initial / initial.sum(-1, keepdim=True), transition / 2


def random_discrete(states: int, symbols: int, *, starts: int, seed: int = 0) -> Discrete:
    """Random models to start from, of batch shape (starts,).

    Example:
        >>> random_discrete(2, 3, starts=7).emission.shape
        torch.Size([7, 2, 3])
    """
    generator, dtype = torch.Generator().manual_seed(seed), torch.get_default_dtype()
    emission = torch.rand(starts, states, symbols, generator=generator, dtype=dtype)
    chains = _random_chains(states, starts, generator, dtype)
    return Discrete(*chains, emission / emission.sum(-1, keepdim=True))


def random_gaussian(
    x: Tensor,  # (S, T, D)
    states: int,
    *,
    starts: int,
    seed: int = 0,
) -> Gaussian:
    """Random models to start from, of batch shape (starts,), with means at data.

    Example:
        >>> random_gaussian(torch.randn(4, 6, 2), 3, starts=7).locs.shape
        torch.Size([7, 3, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    points = x.flatten(0, 1)
    order = torch.rand(starts, len(points), generator=generator).argsort(-1)
    chains = _random_chains(states, starts, generator, x.dtype)
    scales = points.std(0).expand(starts, states, -1).clone()
    return Gaussian(*chains, points[order[:, :states]], scales)
