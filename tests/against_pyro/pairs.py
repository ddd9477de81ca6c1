"""Models, guides and their exact answers, shared by the comparisons."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch

POSTERIOR_SD = math.sqrt(0.5)


def local_normals(x, batch=None, *, offset=0.0, sd=POSTERIOR_SD, num_samples=None):
    """``z_n ~ N(0, 1), x_n ~ N(z_n, 1)``; the guide is ``N(x_n/2 + offset, sd)``.

    The posterior has mean x_n/2 and variance 1/2; the evidence has mean 0 and variance 2.
    With ``num_samples`` the guide's site asks for that many parallel samples, as tensor Monte Carlo
    wants it.
    """
    infer = {} if num_samples is None else {"enumerate": "parallel", "num_samples": num_samples}

    def model(observations=None):
        with pyro.plate("data", len(x), subsample_size=batch) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def guide(observations=None):
        with pyro.plate("data", len(x), subsample_size=batch) as i:
            pyro.sample("z", dist.Normal(x[i] / 2 + offset, sd), infer=infer)

    return model, guide


def log_evidence(x):
    """Log-evidence of every datum of ``local_normals``."""
    return dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)


def bound_of_two(x, offset, sd, nodes=80):
    """``sum_n E log((w_1 + w_2)/2)`` for ``local_normals``, by Gauss-Hermite quadrature."""
    points, masses = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    masses = masses / masses.sum()
    guide = dist.Normal(x / 2 + offset, sd)
    z = guide.loc + sd * points[:, None]  # (nodes, N)
    log_w = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - guide.log_prob(z)
    pairs = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2.0)
    return (masses[:, None, None] * masses[:, None] * pairs).sum().item()


# z ~ Bernoulli(0.3), x ~ N(3 z, 1), x = 1.7, with as many independent copies as one likes, each
# with a logit of its own: every copy gives one independent estimate of the same gradient.
COIN_DATUM, COIN_LOGIT = 1.7, -0.5


def coins(copies, num_samples=None):
    """Independent copies of the coin model, and a Bernoulli guide with a logit for each."""
    infer = {} if num_samples is None else {"enumerate": "parallel", "num_samples": num_samples}

    def model():
        with pyro.plate("copies", copies):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(3 * z, 1.0), obs=torch.full((copies,), COIN_DATUM))

    def guide():
        logits = pyro.param("logits", torch.full((copies,), COIN_LOGIT))
        with pyro.plate("copies", copies):
            pyro.sample("z", dist.Bernoulli(logits=logits), infer=infer)

    return model, guide


def coin_gradient(alpha, particles):
    """Gradient of the expected negated Renyi bound of one coin, by enumeration of all draws."""
    logit = torch.tensor(COIN_LOGIT, requires_grad=True)
    guide = dist.Bernoulli(logits=logit)
    expected = 0.0
    for z in map(torch.tensor, itertools.product([0.0, 1.0], repeat=particles)):
        log_p = dist.Bernoulli(0.3).log_prob(z)
        log_p = log_p + dist.Normal(3 * z, 1.0).log_prob(torch.tensor(COIN_DATUM))
        log_q = guide.log_prob(z)
        power = torch.logsumexp((1 - alpha) * (log_p - log_q), 0) - math.log(particles)
        expected = expected + log_q.sum().exp() * power / (1 - alpha)
    return torch.autograd.grad(-expected, logit)[0].item()


DATUM = torch.tensor(1.7, dtype=torch.float64)


def one_normal(observations=None):
    """``z ~ N(0, 1), x ~ N(z, 1), x = 1.7``: the posterior has mean 0.85, variance 1/2."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=DATUM)
