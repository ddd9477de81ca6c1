"""What families on unconstrained space ask about the bijection to a support."""

from __future__ import annotations

from typing import Any

from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import IndependentTransform

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.guides.bijection import bijection_to

__all__ = ["bijection", "has_bijection", "is_elementwise", "is_real", "unconstrained_dim"]


def has_bijection(support: Constraint) -> bool:
    """Whether there is a bijection from unconstrained space."""
    try:
        bijection_to(support, "")
    except UnsupportedStructure:
        return False
    return True


def bijection(support: Constraint) -> Transform:
    """From unconstrained space to a support that the family has accepted."""
    return bijection_to(support, "of this family")


def unconstrained_dim(transform: Transform, event_dim: int) -> int:
    """Number of event dimensions before the transform, of ``event_dim`` after it."""
    return event_dim + int(transform.domain.event_dim - transform.codomain.event_dim)


def is_real(support: Any) -> bool:
    """Whether the support is the real line in every entry, so that nothing is transformed."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))


def is_elementwise(transform: Any) -> bool:
    """Whether the transform acts entry by entry."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return bool(transform.domain.event_dim == 0 and transform.codomain.event_dim == 0)
