"""A mixture of two normals with unknown means, and assignments that the model enumerates.

    mu_c ~ N(m_c, 2),   assignment_n ~ Categorical(0.35, 0.65),   x_n ~ N(mu[assignment_n], 1)

with eight data and prior means -1 and 2. Given all assignments the means are independent normals,
so the posterior of ``mu`` is exactly a mixture of 2^8 = 256 normals. Prior means and weights
break the symmetry of the labels: 5 % of the posterior is where ``mu_0 > mu_1``.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "assignment_probabilities",
    "data",
    "exact_guide",
    "model",
    "posterior_by_enumeration",
    "problem",
]

DATA = (-2.4, -1.5, -0.7, 0.6, 1.4, 1.9, 2.5, 3.3)
WEIGHTS = (0.35, 0.65)
PRIOR_MEANS = (-1.0, 2.0)
PRIOR_SCALE = 2.0


def data() -> Tensor:
    """The eight data, shape (8,).

    Example:
        >>> data().shape
        torch.Size([8])
    """
    return torch.tensor(DATA)


def model(x: Tensor, subsample_size: int | None = None) -> None:
    """Means ``mu`` of event shape (2,), for data of shape (N,).

    The site ``assignment`` is enumerated on the model's side; a guide must not have it.
    """
    mu = pyro.sample("mu", dist.Normal(x.new_tensor(PRIOR_MEANS), PRIOR_SCALE).to_event(1))
    weights = x.new_tensor(WEIGHTS)
    with pyro.plate("data", x.shape[-1], subsample_size=subsample_size) as index:
        assignment = pyro.sample(
            "assignment", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        pyro.sample("x", dist.Normal(Vindex(mu)[..., assignment], 1.0), obs=x[..., index])


def all_assignments(x: Tensor) -> Tensor:
    """All ways to assign data of shape (N,), one-hot, shape (2^N, N, 2)."""
    size = x.shape[-1]
    states = torch.cartesian_prod(*[torch.arange(2)] * size).reshape(-1, size)
    return torch.nn.functional.one_hot(states, 2).to(x.dtype)


def posterior_by_enumeration(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The joint posterior of assignments and means.

    Given assignments, the mean of a component with ``n`` data of sum ``s`` is normal with
    precision ``1/4 + n`` and mean ``(m/4 + s) / precision``. The evidence of an assignment is
    ``p(a) p(x | mu, a) p(mu) / p(mu | x, a)``, which is the same at any mu; we take the mean.

    Args:
        x: Data of shape (N,), with N so small that 2^N rows are no burden.

    Returns:
        ``log p(x, a)`` of shape (2^N,), and the means and standard deviations of ``mu`` given each
        assignment, of shape (2^N, 2).

    Example:
        >>> log_joint, means, sds = posterior_by_enumeration(data())
        >>> log_joint.shape, means.shape
        (torch.Size([256]), torch.Size([256, 2]))
    """
    assigned = all_assignments(x)  # (2^N, N, 2)
    prior_mean = x.new_tensor(PRIOR_MEANS)
    prior_precision = 1 / PRIOR_SCALE**2

    precision = prior_precision + assigned.sum(1)  # (2^N, 2)
    mean = (prior_precision * prior_mean + (assigned * x[:, None]).sum(1)) / precision
    sd = precision.rsqrt()

    log_assignment = (assigned * x.new_tensor(WEIGHTS).log()).sum((1, 2))
    log_likelihood = (assigned * dist.Normal(mean[:, None], 1.0).log_prob(x[:, None])).sum((1, 2))
    log_prior = dist.Normal(prior_mean, PRIOR_SCALE).log_prob(mean).sum(1)
    log_posterior = dist.Normal(mean, sd).log_prob(mean).sum(1)
    return log_assignment + log_likelihood + log_prior - log_posterior, mean, sd


def assignment_probabilities(x: Tensor) -> Tensor:
    """``p(assignment_n = c | x)`` with the means integrated out, shape (N, 2).

    Args:
        x: Data of shape (N,).

    Example:
        >>> bool(assignment_probabilities(data())[0, 0] > 0.9)
        True
    """
    log_joint, _, _ = posterior_by_enumeration(x)
    return torch.einsum("a,anc->nc", log_joint.softmax(0), all_assignments(x))


def exact_guide(x: Tensor, subsample_size: int | None = None) -> None:
    """The posterior of ``mu`` given all data, a mixture of 2^N normals; it has no ``rsample``."""
    log_joint, means, sds = posterior_by_enumeration(x)
    components = dist.Normal(means, sds).to_event(1)
    pyro.sample("mu", dist.MixtureSameFamily(dist.Categorical(logits=log_joint), components))


def problem(subsample_size: int | None = None) -> Problem:
    """The eight data. Reference and evidence are those of all data, whatever the minibatch.

    Example:
        >>> problem().reference["mu"].mean.round(decimals=3)
        tensor([-1.2260,  1.8180])
    """
    x = data()
    log_joint, means, sds = posterior_by_enumeration(x)
    chance = log_joint.softmax(0)[:, None]
    mean = (chance * means).sum(0)
    variance = (chance * (sds**2 + (means - mean) ** 2)).sum(0)
    return Problem(
        name="small mixture",
        model=model,
        args=(x,),
        kwargs={"subsample_size": subsample_size},
        exact_guide=exact_guide,
        reference={"mu": Moments(mean, variance.sqrt())},
        log_evidence=float(log_joint.logsumexp(0)),
        how="enumeration",
        source="made up for this file",
        summed_out=("assignment",),
    )
