"""Eight normals on a circle, with unequal masses: does a guide find them all, and weigh them?

    p(z) = sum_k m_k N(z; 8 (cos k pi/4, sin k pi/4), I),   k = 0..7
    m    = (.05, .2, .1, .15, .1, .2, .1, .1)

Neighbours are 6.1 standard deviations apart. A normal guide fitted by reverse KL takes one mode or
two neighbours, and which one depends on the start. How well a guide does is read off its draws
(Blessing et al., 2024): the share of the nearest mode, and the entropy of these shares over log 8.
An entropy of 1 is not the aim here; that of the masses is 0.961.

Source: a ring of normals is the usual picture (Blessing, Jia, Esslinger, Vargas and Neumann, 2024,
"Beyond ELBOs"); the masses were made up for this file.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from models.problem import Moments, Problem

__all__ = [
    "MASSES",
    "exact_guide",
    "masses",
    "means",
    "mode_entropy",
    "mode_shares",
    "model",
    "problem",
    "target",
]

MASSES = (0.05, 0.2, 0.1, 0.15, 0.1, 0.2, 0.1, 0.1)
RADIUS = 8.0
PRIOR_SCALE = 6.0


def masses() -> Tensor:
    """The masses of the modes, shape (8,); they sum to 1.

    Example:
        >>> masses()
        tensor([0.0500, 0.2000, 0.1000, 0.1500, 0.1000, 0.2000, 0.1000, 0.1000])
    """
    return torch.tensor(MASSES)


def means() -> Tensor:
    """The centres of the modes, counter-clockwise from (8, 0), shape (8, 2).

    Example:
        >>> means()[2].round(decimals=4)
        tensor([-0.,  8.])
    """
    angle = torch.arange(8, dtype=torch.get_default_dtype()) * math.pi / 4
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1)


def target() -> dist.MixtureSameFamily:
    """The target as a distribution of event shape (2,), to draw from and to evaluate.

    Example:
        >>> target().sample((3,)).shape
        torch.Size([3, 2])
    """
    components = dist.Normal(means(), 1.0).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(probs=masses()), components)


def model() -> None:
    """The target as a wide normal prior and a correcting factor.

    As a prior the mixture itself would have no unconstrained form known to autoguides.
    """
    prior = dist.Normal(torch.zeros(2), PRIOR_SCALE).to_event(1)
    z = pyro.sample("z", prior)
    pyro.factor("correction", target().log_prob(z) - prior.log_prob(z))


def exact_guide() -> None:
    """The target as a guide; it has no ``rsample``."""
    pyro.sample("z", target())


def mode_shares(
    z: Tensor,  # (*batch, 2)
) -> Tensor:  # (8,)
    """The share of draws that are nearest to each mode.

    Of draws of the target 0.2 % are nearest to a neighbour of the mode they belong to, so its
    shares differ from the masses by up to 0.0003.

    Args:
        z: Draws, all of the same weight.

    Example:
        >>> mode_shares(means()[:4])
        tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    nearest = torch.cdist(z.reshape(-1, 2), means().to(z)).argmin(-1)
    return torch.bincount(nearest, minlength=8).to(z.dtype) / len(nearest)


def mode_entropy(
    shares: Tensor,  # (8,)
) -> float:
    """Entropy of the shares over ``log 8``: 0 for one mode, 1 for eight equal ones.

    Args:
        shares: Non-negative numbers that sum to 1.

    Source:
        Blessing, Jia, Esslinger, Vargas and Neumann (2024), "Beyond ELBOs".

    Example:
        >>> round(mode_entropy(masses()), 4)
        0.9614
    """
    return float(torch.special.entr(shares).sum() / math.log(len(shares)))


def problem() -> Problem:
    """The eight modes, as one site ``z`` of event shape (2,).

    The covariance is ``I + sum_k m_k c_k c_k^T - mean mean^T`` with the centres ``c_k``.

    Example:
        >>> problem().reference["z"].mean.round(decimals=4)
        tensor([-0.6828,  0.2828])
    """
    centre, mass = means(), masses()[:, None]
    mean = (mass * centre).sum(0)
    variance = 1 + (mass * (centre - mean) ** 2).sum(0)
    return Problem(
        name="eight modes",
        model=model,
        exact_guide=exact_guide,
        reference={"z": Moments(mean, variance.sqrt())},
        log_evidence=0.0,
        how="closed form",
        source="made up for this file, after Blessing et al. (2024)",
    )
