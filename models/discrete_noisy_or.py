"""A noisy-OR network: four diseases, five findings, all binary.

    disease_i ~ Bernoulli(prior_i)
    P(finding_j absent | diseases) = (1 - leak_j) prod_i (1 - strength_ij)^disease_i

Each disease that is present sets off each finding independently, and a finding may also appear
for no known reason (the leak). Given findings the diseases compete to explain them, so their
posterior is far from independent; it is small enough (16 states) to be enumerated.

Source of the network type: Shwe et al. (1991), the QMR-DT network. The numbers were made up.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "data",
    "exact_guide",
    "log_joint_table",
    "mean_field_guide",
    "model",
    "posterior_table",
    "problem",
]

PRIOR = (0.10, 0.20, 0.05, 0.30)
LEAK = (0.05, 0.02, 0.10, 0.01, 0.05)
STRENGTH = (  # rows are diseases, columns are findings
    (0.90, 0.60, 0.00, 0.30, 0.00),
    (0.50, 0.70, 0.40, 0.00, 0.10),
    (0.00, 0.80, 0.70, 0.90, 0.00),
    (0.30, 0.00, 0.20, 0.40, 0.60),
)
FINDINGS = (1.0, 1.0, 0.0, 1.0, 0.0)
SITES = tuple(f"disease_{i}" for i in range(len(PRIOR)))


def data() -> Tensor:
    """Which findings are present, shape (5,).

    Example:
        >>> data()
        tensor([1., 1., 0., 1., 0.])
    """
    return torch.tensor(FINDINGS)


def model(findings: Tensor) -> None:
    """Diseases ``disease_0`` ... ``disease_3`` given findings of shape (5,), zeros and ones."""
    log_absent = torch.log1p(-torch.tensor(LEAK))
    for site, prior, strength in zip(SITES, PRIOR, STRENGTH, strict=True):
        disease = pyro.sample(site, dist.Bernoulli(torch.tensor(prior)))
        # The findings are on the rightmost dimension, to the right of all that diseases have.
        log_absent = log_absent + disease * torch.log1p(-torch.tensor(strength))
    with pyro.plate("findings", findings.shape[-1]):
        pyro.sample("finding", dist.Bernoulli(-torch.expm1(log_absent)), obs=findings)


def mean_field_guide(findings: Tensor) -> None:
    """Independent Bernoullis with one parameter ``disease_logits`` of shape (4,)."""
    logits = pyro.param("disease_logits", lambda: torch.zeros(len(SITES)))
    for i, site in enumerate(SITES):
        pyro.sample(site, dist.Bernoulli(logits=logits[i]))


def log_joint_table(findings: Tensor) -> Tensor:
    """``log p(diseases, findings)`` for all states, shape (2, 2, 2, 2), one axis per disease.

    Args:
        findings: Zeros and ones, shape (5,).

    Example:
        >>> log_joint_table(data()).shape
        torch.Size([2, 2, 2, 2])
    """
    options = [torch.arange(2)] * len(SITES)
    states = torch.cartesian_prod(*options).to(torch.get_default_dtype())  # (16, 4)
    log_prior = dist.Bernoulli(torch.tensor(PRIOR)).log_prob(states).sum(-1)
    log_absent = torch.log1p(-torch.tensor(LEAK)) + states @ torch.log1p(-torch.tensor(STRENGTH))
    log_likelihood = dist.Bernoulli(-torch.expm1(log_absent)).log_prob(findings).sum(-1)
    return (log_prior + log_likelihood).reshape([2] * len(SITES))


def posterior_table(findings: Tensor) -> Tensor:
    """``p(diseases | findings)`` for all states, shape (2, 2, 2, 2), one axis per disease.

    Args:
        findings: Zeros and ones, shape (5,).

    Example:
        >>> round(float(posterior_table(data()).sum()), 4)
        1.0
    """
    log_joint = log_joint_table(findings)
    return (log_joint - log_joint.logsumexp((0, 1, 2, 3))).exp()


def exact_guide(findings: Tensor) -> None:
    """The posterior by the chain rule: each disease given the diseases before it."""
    table = posterior_table(findings)
    drawn: list[Tensor] = []
    for i, site in enumerate(SITES):
        axes_after = tuple(range(i + 1, len(SITES)))
        joint = table.sum(axes_after) if axes_after else table  # diseases 0 ... i
        chance = joint[..., 1] / joint.sum(-1)  # of disease i, given diseases 0 ... i - 1
        given = Vindex(chance)[tuple(drawn)] if drawn else chance
        drawn.append(pyro.sample(site, dist.Bernoulli(given)).long())


def problem() -> Problem:
    """Four discrete sites without an autoguide; the moments are those of zeros and ones.

    Example:
        >>> [round(float(moments.mean), 3) for moments in problem().reference.values()]
        [0.821, 0.277, 0.109, 0.294]
    """
    findings = data()
    table = posterior_table(findings)
    reference = {}
    for i, site in enumerate(SITES):
        chance = table.select(i, 1).sum()
        reference[site] = Moments(chance, (chance * (1 - chance)).sqrt())
    return Problem(
        name="noisy-OR",
        model=model,
        args=(findings,),
        guide=mean_field_guide,
        exact_guide=exact_guide,
        reference=reference,
        log_evidence=float(log_joint_table(findings).logsumexp((0, 1, 2, 3))),
        how="enumeration",
        source="network type of Shwe et al. (1991), QMR-DT; numbers made up for this file",
        guides=(),
    )
