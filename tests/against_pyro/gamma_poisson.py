"""A positive latent: ``z ~ Gamma(3, 1), x ~ Poisson(z), x = 4``, with the posterior Gamma(7, 2)."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch

SHAPE, RATE = 7.0, 2.0  # of the posterior


def gamma_poisson(observations=None):
    """``z ~ Gamma(3, 1), x ~ Poisson(z), x = 4``."""
    z = pyro.sample("z", dist.Gamma(3.0, 1.0))
    pyro.sample("x", dist.Poisson(z), obs=torch.tensor(4.0))


def log_normal_elbo(m, s):
    """The ELBO of a guide LogNormal(m, s), with E log z = m and E z = exp(m + s^2/2)."""
    log_joint = SHAPE * m - RATE * math.exp(m + s * s / 2) - math.lgamma(3.0) - math.lgamma(5.0)
    return log_joint + math.log(s) + 0.5 * math.log(2 * math.pi * math.e)


# E log z and sd log z of the Gamma(7, 2) posterior: the best log-normal by forward KL.
FORWARD_M = torch.digamma(torch.tensor(SHAPE, dtype=torch.float64)).item() - math.log(RATE)
FORWARD_S = torch.polygamma(1, torch.tensor(SHAPE, dtype=torch.float64)).sqrt().item()
# The best log-normal by reverse KL: the ELBO's gradient is zero at s^2 = 1/7, E z = 7/2.
REVERSE_S = SHAPE**-0.5
REVERSE_M = math.log(SHAPE / RATE) - REVERSE_S**2 / 2


def log_normal_wake_gradient(guide, z):
    """``-sum_k wbar_k d log q(z_k)`` for loc and scale of an AutoNormal on ``gamma_poisson``."""
    loc, scale = guide.locs.z.detach().requires_grad_(), guide.scales.z.detach().requires_grad_()
    log_q = dist.LogNormal(loc, scale).log_prob(z)
    log_p = dist.Gamma(SHAPE, RATE).log_prob(z)  # the posterior, whose constant drops out
    weights = torch.softmax((log_p - log_q).detach(), 0)
    return torch.autograd.grad(-(weights * log_q).sum(), (loc, scale))
