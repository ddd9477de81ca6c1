"""Two separate modes and a wide normal guide on one of them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

MODES = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.5, 0.5], dtype=torch.float64)),
    dist.Normal(torch.tensor([-3.0, 3.0], dtype=torch.float64), 1.0),
)


def two_modes():
    """Half of the mass around -3, half around 3."""
    pyro.sample("z", MODES)


def wide_normal():
    """A guide that sits on one of the modes."""
    pyro.sample(
        "z", dist.Normal(pyro.param("m", torch.tensor(2.0)), pyro.param("s", torch.tensor(1.5)))
    )


def tail_adaptive_gradient(z):
    """``-sum_k gamma_k P_k`` of the paper for m and s of ``wide_normal`` at given draws.

    gamma_k is proportional to one over the fraction of weights at least as large as w_k; P_k is the
    derivative of log w_k along the path z_k = m + s eps_k, with the density's own parameters fixed.
    """
    m, s = torch.tensor(2.0, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    path = m + s * (z - 2.0) / 1.5
    log_w = MODES.log_prob(path) - dist.Normal(2.0, 1.5).log_prob(path)
    gamma = 1 / (log_w[None] >= log_w[:, None]).double().mean(1)
    gamma = gamma / gamma.sum()
    return torch.stack(torch.autograd.grad(-(gamma.detach() * log_w).sum(), (m, s)))


def reverse_kl_gradient():
    """Gradient of KL(q || p) for m and s of ``wide_normal``, by the trapezoidal rule."""
    m, s = torch.tensor(2.0, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    z = torch.linspace(-18.0, 22.0, 4001, dtype=torch.float64)
    log_q = dist.Normal(m, s).log_prob(z)
    divergence = torch.trapezoid(log_q.exp() * (log_q - MODES.log_prob(z)), z)
    return torch.autograd.grad(divergence, (m, s))
