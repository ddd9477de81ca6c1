"""Tails and many dimensions."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from scipy import stats
from torch import Tensor

from claims.grid import reverse_kl_normal
from pyro_klmodes import draws
from pyro_klmodes.weights import pareto_khat


def normal_for_student(degrees: float) -> tuple[float, float]:
    """Standard deviation and KL(q‖p) of the best normal for a Student-t by reverse KL."""
    log_p = dist.StudentT(torch.tensor(degrees, dtype=torch.float64)).log_prob
    _, sd, lost = reverse_kl_normal(log_p, 0.0, 1.0)
    return sd, lost


def truncated_forward_kl(degrees: float, ends: Tensor) -> Tensor:
    """The part of KL(p‖q) within each end, for a Student-t and the unit normal.

    The integrand goes like ``|z|^(1 - degrees)``: with 2 degrees or fewer the sum has no limit.
    """
    p = dist.StudentT(torch.tensor(degrees, dtype=torch.float64))
    parts = []
    for end in ends:
        z = torch.linspace(0, float(end), 400_001, dtype=torch.float64)
        log_p = p.log_prob(z)
        log_q = dist.Normal(z.new_zeros(()), 1.0).log_prob(z)
        parts.append(2 * torch.trapezoid(log_p.exp() * (log_p - log_q), z))
    return torch.stack(parts)


def student(degrees: float):
    return lambda: pyro.sample("z", dist.StudentT(degrees, torch.zeros(()), 1.0))


def khat(guide_degrees: float, target_degrees: float, number: int = 1_000_000) -> float:
    """k-hat of the weights of a Student-t guide on a Student-t target."""
    torch.manual_seed(1)
    found = draws(student(target_degrees), student(guide_degrees), num_particles=number)
    return float(pareto_khat(found.log_w))


def radius(dimension: int) -> float:
    """E‖z‖ of a standard normal."""
    return math.sqrt(2) * math.exp(math.lgamma((dimension + 1) / 2) - math.lgamma(dimension / 2))


def effective_share(dimension: int, scale: float = 0.9) -> float:
    """1 / E_q[(p/q)²] for p = N(0, I) and q = N(0, scale² I): of infinitely many draws."""
    return (scale / math.sqrt(2 - scale**-2)) ** -dimension


def exceeding(z: Tensor, degrees: float) -> Tensor:
    """P(exceeding z) of a Student-t."""
    return torch.as_tensor(stats.t.sf(z, degrees))


def student_quantile(probability: float, degrees: float) -> float:
    """Quantile of a Student-t."""
    return float(stats.t.ppf(probability, degrees))
