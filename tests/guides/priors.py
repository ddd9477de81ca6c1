"""Models without data on every kind of support, with tails heavier than those of the guides.

The integral of a guide's density is estimated by importance sampling from them, which has a finite
variance only if they cover the guide.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_klmodes.guides.bijection import bijection_to


def wide(name, support, size):
    """A site on a support whose unconstrained coordinates are Student-t with three degrees."""
    base = dist.StudentT(3.0, torch.zeros(size), 2.0).to_event(1)
    if support is constraints.real:
        return pyro.sample(name, base)
    return pyro.sample(name, dist.TransformedDistribution(base, [bijection_to(support, name)]))


def real():
    wide("a", constraints.real, 2)


def positive():
    pyro.sample("s", dist.TransformedDistribution(dist.StudentT(3.0, 0.0, 2.0), [exp()]))


def unit_interval():
    support = constraints.unit_interval
    base = dist.StudentT(3.0, 0.0, 2.0)
    pyro.sample("p", dist.TransformedDistribution(base, [bijection_to(support, "p")]))


def simplex():
    wide("w", constraints.simplex, 2)


def correlation():
    wide("R", constraints.corr_cholesky, 3)


def several_sites():
    a = pyro.sample("a", dist.StudentT(3.0, 0.0, 2.0))
    pyro.sample("s", dist.TransformedDistribution(dist.StudentT(3.0, 0.1 * a, 2.0), [exp()]))
    pyro.sample("b", dist.StudentT(3.0, a, 2.0))


def plate():
    with pyro.plate("d", 2):
        pyro.sample("z", dist.StudentT(3.0, 0.0, 2.0))


def exp():
    return bijection_to(constraints.positive, "s")


PRIORS = {
    "real": real,
    "positive": positive,
    "unit_interval": unit_interval,
    "simplex": simplex,
    "correlation": correlation,
    "several_sites": several_sites,
    "plate": plate,
}
