"""Whole training steps of small models in plain torch: draws, densities, loss and gradients."""

import copy
import functools
import math

import torch
from torch.distributions import Bernoulli, HalfCauchy, HalfNormal, Normal
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

K = 16


def step_of(log_joint, size, loss):
    """A step of a mean-field normal guide: ``(loc, rho, *data) -> (loss, d loc, d rho)``."""

    def step(loc, rho, *data):
        loc, rho = (p.detach().requires_grad_() for p in (loc, rho))
        scale = torch.nn.functional.softplus(rho)
        guide = Normal(loc.expand(K, size), scale.expand(K, size), validate_args=False)
        z = guide.rsample()
        log_q = guide.log_prob(z).sum(-1) + (z == z).to(z.dtype).log().sum(-1)
        value = loss(log_joint(z, *data) - log_q)
        return (value.detach(), *torch.autograd.grad(value, (loc, rho)))

    return step


def reverse_kl(log_w):
    return -log_w.mean(0)


def iwae(log_w):
    return math.log(len(log_w)) - torch.logsumexp(log_w, 0)


def schools(z, sigma, y):
    mu, log_tau, eta = z[:, :1], z[:, 1:2], z[:, 2:]
    tau = log_tau.exp()
    shape = (K, 8)
    prior = Normal(torch.tensor(0.0).expand(K, 1), torch.tensor(5.0).expand(K, 1), False)
    prior_tau = HalfCauchy(torch.tensor(5.0).expand(K, 1), False)
    prior_eta = Normal(torch.tensor(0.0).expand(shape), torch.tensor(1.0).expand(shape), False)
    data = Normal((mu + tau * eta).expand(shape), sigma.expand(shape), False)
    parts = (prior.log_prob(mu), prior_tau.log_prob(tau) + log_tau, prior_eta.log_prob(eta))
    return sum(p.sum(-1) for p in parts) + data.log_prob(y).sum(-1)


def logistic(z, x, y):
    prior = Normal(torch.zeros(z.shape[-1]), torch.tensor(1.0), False).log_prob(z).sum(-1)
    logits = vmap(lambda w: x @ w[1:] + w[0])(z)
    return prior + Bernoulli(logits=logits, validate_args=False).log_prob(y).sum(-1)


def radon(z, county, floor, y):
    def one(z):
        mu, slope, log_tau, log_sigma, a = z[0], z[1], z[2], z[3], z[4:]
        prior = Normal(0.0, 10.0, False).log_prob(z[:2]).sum()
        scales = HalfNormal(1.0, False).log_prob(z[2:4].exp()).sum() + z[2:4].sum()
        groups = Normal(mu, log_tau.exp(), False).log_prob(a).sum()
        sigma = log_sigma.exp().expand(len(y))
        return (
            prior
            + scales
            + groups
            + Normal(a[county] + slope * floor, sigma, False).log_prob(y).sum()
        )

    return vmap(one)(z)


def mixture(z, x):
    def one(z):
        shares, mu, sigma = z[:3].log_softmax(-1), z[3:6], z[6:].exp()
        which = torch.arange(3).reshape(3, 1)
        component = Normal(mu[which].expand(3, len(x)), sigma[which].expand(3, len(x)), False)
        terms = shares[which] + component.log_prob(x)
        return torch.logsumexp(terms, 0).sum() + Normal(0.0, 5.0, False).log_prob(z).sum()

    return vmap(one)(z)


def cases():
    """Log-joint, number of latents and data by name."""
    g = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=g)

    county = torch.randint(0, 85, (900,), generator=g)
    return {
        "schools": (schools, 10, (normal(8).abs() + 1, normal(8))),
        "logistic": (logistic, 26, (normal(1000, 25), (normal(1000) > 0).to(normal(1).dtype))),
        "radon": (radon, 89, (county, normal(900), normal(900))),
        "mixture": (mixture, 9, (normal(500),)),
    }


def traced(name, loss):
    """The graph of a step, and inputs for it."""
    graph, inputs = _traced(name, loss, torch.get_default_dtype())
    return copy.deepcopy(graph), [x.clone() for x in inputs]


@functools.cache
def _traced(name, loss, dtype):
    assert dtype == torch.get_default_dtype()
    log_joint, size, data = cases()[name]
    inputs = [torch.randn(size) * 0.1, torch.randn(size) * 0.1 - 1.0, *data]
    return make_fx(step_of(log_joint, size, loss))(*inputs), inputs
