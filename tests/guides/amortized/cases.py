"""Models with local latents whose posteriors are closed, and guides at the posterior."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_klmodes.guides.amortized import MLP, AutoAmortized, FullNormal
from pyro_klmodes.guides.amortized.families import as_raw

NOISE = 0.5
LINEAR = MLP(hidden=(), standardise=False)


def normal_normal(x, size=None, idx=None):
    """The posterior of z_n is Normal(MEAN x_n, SD)."""
    with pyro.plate("data", len(x), size, idx) as i:
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        pyro.sample("x", dist.Normal(z, NOISE), obs=x[i])


MEAN = 1 / (1 + NOISE**2)
SD = NOISE / math.sqrt(1 + NOISE**2)


def log_evidence(x):
    """Of every datum under ``normal_normal``, (N,)."""
    return dist.Normal(0.0, math.sqrt(1 + NOISE**2)).log_prob(x)


def exact(x, *args, **options):
    """An amortised guide with the posteriors of ``normal_normal``: an affine encoder has them."""
    guide = AutoAmortized(normal_normal, encoder=LINEAR, **options)
    guide(x, *args)
    with torch.no_grad():
        linear = guide.heads[0].linear
        linear.weight.copy_(torch.tensor([[MEAN], [0.0]]))
        linear.bias.copy_(torch.stack([torch.zeros(()), as_raw(torch.tensor(SD))]))
    return guide


def chain(x):
    """Two local sites: z ~ N(0, 1), two coordinates of w around it, x around their sum."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(z[..., None], torch.ones(2)).to_event(1))
        pyro.sample("x", dist.Normal(w.sum(-1), 1.0), obs=x)


def exact_chain(x):
    """The posterior of ``chain``, one normal over (z, w1, w2) for each datum, site by site.

    The prior of (z, w) has the covariance below, and x is h'(z, w) plus noise of variance one.
    """
    prior = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    h = torch.tensor([0.0, 1.0, 1.0])
    evidence = h @ prior @ h + 1.0
    gain = prior @ h / evidence  # (3,): the posterior mean is gain * x
    covariance = prior - torch.outer(gain, prior @ h)
    coefficients = covariance[1:, :1] / covariance[:1, :1]  # of w given z
    rest = covariance[1:, 1:] - coefficients @ covariance[:1, 1:]
    factor = torch.linalg.cholesky(rest)
    guide = AutoAmortized(chain, encoder=LINEAR, family=FullNormal(), coupled=True)
    guide(x)
    sd = factor.diagonal()
    with torch.no_grad():
        first, second = (head.linear for head in guide.heads)
        first.weight.copy_(torch.stack([gain[0], torch.zeros(())])[:, None])
        first.bias.copy_(torch.stack([torch.zeros(()), as_raw(covariance[0, 0].sqrt())]))
        # raw: location (2), scales (2), below the diagonal (1), coefficients (2 x 1)
        own = gain[1:] - coefficients[:, 0] * gain[0]
        second.weight.copy_(torch.cat([own, torch.zeros(5)])[:, None])
        lower = factor[1:, 0] / sd[1:]
        second.bias.copy_(torch.cat([torch.zeros(2), as_raw(sd), lower, coefficients[:, 0]]))
    return guide, dist.Normal(0.0, evidence.sqrt()).log_prob(x)


class Counting(nn.Module):
    """An affine encoder that counts its runs, and the rows it sees."""

    def __init__(self, size=1, features=3):
        super().__init__()
        self.linear = nn.Linear(size, features, dtype=torch.float64)
        self.rows = []

    def forward(self, rows):
        self.rows.append(len(rows))
        return self.linear(rows)


def shaken(guide, *args, size=0.3, seed=3, **kwargs):
    """The guide with parameters that are not those it starts with."""
    guide(*args, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in guide.parameters():
            p += size * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return guide
