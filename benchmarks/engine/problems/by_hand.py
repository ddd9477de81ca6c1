"""Log-densities of the models written directly in torch, on unconstrained latents.

Latents are one vector per particle, in the order of the model's sites; ``z`` has shape (K, D).
They are what somebody would write who leaves Pyro for speed: batched over particles, nothing
computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from benchmarks.engine.problems.data import COUNTIES
from benchmarks.engine.problems.in_pyro import MEANS, SHARES, WIDTH

__all__ = ["FLAT", "Flat", "bernoulli", "normal"]

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Flat:
    """A density of one vector.

    Attributes:
        density: of latents (K, D) and the data; returns (K,).
        sizes: numbers of coordinates of the sites, which add up to D.
    """

    density: Callable[..., Tensor]
    sizes: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """D."""
        return sum(self.sizes)


def normal(x: Tensor | float, mean: Tensor | float, width: Tensor | float) -> Tensor:
    """Log-density of a normal, element by element."""
    log_width = width.log() if isinstance(width, Tensor) else math.log(width)
    return -0.5 * ((x - mean) / width) ** 2 - log_width - HALF_LOG_TAU


def bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of zeros and ones, element by element."""
    return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")


def _half_normal(log_x: Tensor) -> Tensor:
    """Of the logarithm of a half-normal variable with scale one, Jacobian included."""
    return normal(log_x.exp(), 0.0, 1.0) + math.log(2) + log_x


def eight_schools(z: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """``z``: mu, log tau, eta."""
    mu, log_tau, eta = z[:, 0], z[:, 1], z[:, 2:]
    tau = log_tau.exp()
    half_cauchy = math.log(2 / (5 * math.pi)) - torch.log1p((tau / 5) ** 2) + log_tau
    effects = mu[:, None] + tau[:, None] * eta
    return (
        normal(mu, 0.0, 5.0)
        + half_cauchy
        + normal(eta, 0.0, 1.0).sum(-1)
        + normal(y, effects, sigma).sum(-1)
    )


def mixture_potential(z: Tensor) -> Tensor:
    """``z``: a point of the plane."""
    squares = ((z[:, None] - z.new_tensor(MEANS)) ** 2).sum(-1)
    return torch.logsumexp(z.new_tensor(SHARES).log() - 0.5 * squares / WIDTH**2, -1)


def logistic(z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``z``: intercept, weights."""
    b, w = z[:, 0], z[:, 1:]
    priors = normal(b, 0.0, 5.0) + normal(w, 0.0, 1.0).sum(-1)
    return priors + bernoulli(y, w @ x.T + b[:, None]).sum(-1)


def radon(z: Tensor, county: Tensor, floor: Tensor, y: Tensor) -> Tensor:
    """``z``: mu_a, log sigma_a, beta, log sigma_y, intercepts."""
    mu_a, log_sigma_a, beta, log_sigma_y = z[:, :4].unbind(-1)
    a = z[:, 4:]
    means = a[:, county] + beta[:, None] * floor
    return (
        normal(mu_a, 0.0, 10.0)
        + _half_normal(log_sigma_a)
        + normal(beta, 0.0, 10.0)
        + _half_normal(log_sigma_y)
        + normal(a, mu_a[:, None], log_sigma_a.exp()[:, None]).sum(-1)
        + normal(y, means, log_sigma_y.exp()[:, None]).sum(-1)
    )


def enumerated(z: Tensor, x: Tensor) -> Tensor:
    """``z``: two sticks, three means, three log widths."""
    sticks, mu, log_sigma = z[:, :2], z[:, 2:5], z[:, 5:]
    log_weights, log_jacobian = _simplex(sticks)
    sigma = log_sigma.exp()
    of_data = torch.logsumexp(
        log_weights[:, None] + normal(x[:, None], mu[:, None], sigma[:, None]), -1
    )
    return (
        math.log(2)  # the uniform density on the simplex
        + log_jacobian
        + normal(mu, 0.0, 5.0).sum(-1)
        + normal(log_sigma, 0.0, 1.0).sum(-1)
        + of_data.sum(-1)
    )


def hmm(z: Tensor, y: Tensor) -> Tensor:
    """``z``: two sticks per state to leave, three means."""
    log_p, log_jacobian = _simplex(z[:, :6].reshape(-1, 3, 2))
    loc = z[:, 6:]
    of_data = normal(y[:, None], loc[:, None], 1.0)  # (K, time, state)
    forward = log_p[:, 0] + of_data[:, 0]
    for t in range(1, y.shape[0]):
        forward = torch.logsumexp(forward[:, :, None] + log_p, 1) + of_data[:, t]
    priors = 3 * math.log(2) + log_jacobian.sum(-1) + normal(loc, 0.0, 3.0).sum(-1)
    return priors + torch.logsumexp(forward, -1)


def state_space(z: Tensor, y: Tensor) -> Tensor:
    """``z``: log s, the walk."""
    log_s, x = z[:, 0], z[:, 1:]
    return (
        _half_normal(log_s)
        + normal(x[:, 0], 0.0, 1.0)
        + normal(x[:, 1:], x[:, :-1], log_s.exp()[:, None]).sum(-1)
        + normal(y, x[:, 1:], 1.0).sum(-1)
    )


def _simplex(
    sticks: Tensor,  # (..., 2)
) -> tuple[Tensor, Tensor]:  # (..., 3), (...)
    """Logarithms of the shares that break a stick, and the Jacobian of that."""
    logits = sticks - sticks.new_tensor([math.log(2), 0.0])
    broken, kept = logsigmoid(logits), logsigmoid(-logits)
    left = torch.cat([torch.zeros_like(kept[..., :1]), kept.cumsum(-1)], -1)
    log_shares = left + torch.cat([broken, torch.zeros_like(broken[..., :1])], -1)
    return log_shares, (broken + kept + left[..., :-1]).sum(-1)


FLAT = {
    "eight schools": Flat(eight_schools, (1, 1, 8)),
    "mixture potential": Flat(mixture_potential, (2,)),
    "logistic regression": Flat(logistic, (1, 25)),
    "radon": Flat(radon, (1, 1, 1, 1, COUNTIES)),
    "enumerated mixture": Flat(enumerated, (2, 3, 3)),
    "hidden Markov, T = 20": Flat(hmm, (6, 3)),
    "state space, T = 100": Flat(state_space, (1,) * 102),
}
