"""What kind of support a constraint is, whatever wraps it."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

__all__ = [
    "is_boolean",
    "is_positive",
    "is_positive_definite",
    "is_simplex",
    "is_unit_interval",
    "number_of_categories",
    "unwrapped",
]


def unwrapped(support: Constraint) -> Any:
    """The constraint on one entry, vector or matrix, inside ``independent`` and mixtures."""
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    return support


def is_positive(support: Constraint) -> bool:
    """Whether the support is the half line from zero."""
    inner = unwrapped(support)
    half_lines = (type(constraints.positive), type(constraints.nonnegative))
    return isinstance(inner, half_lines) and _all_equal(inner.lower_bound, 0)


def is_unit_interval(support: Constraint) -> bool:
    """Whether the support is the interval from zero to one."""
    inner = unwrapped(support)
    intervals = (constraints.interval, constraints.half_open_interval)
    if not isinstance(inner, intervals):
        return False
    return _all_equal(inner.lower_bound, 0) and _all_equal(inner.upper_bound, 1)


def is_simplex(support: Constraint) -> bool:
    """Whether the support is the probability simplex."""
    return isinstance(unwrapped(support), type(constraints.simplex))


def is_positive_definite(support: Constraint) -> bool:
    """Whether the support is the positive (semi)definite matrices."""
    matrices = (type(constraints.positive_definite), type(constraints.positive_semidefinite))
    return isinstance(unwrapped(support), matrices)


def is_boolean(support: Constraint) -> bool:
    """Whether the support is zero and one."""
    return isinstance(unwrapped(support), type(constraints.boolean))


def number_of_categories(support: Constraint) -> int | None:
    """How many values 0, ..., n-1 the support has, the same for all entries; else None."""
    inner = unwrapped(support)
    if not isinstance(inner, constraints.integer_interval):
        return None
    highest = int(torch.as_tensor(inner.upper_bound).max())
    if not (_all_equal(inner.lower_bound, 0) and _all_equal(inner.upper_bound, highest)):
        return None
    return highest + 1


def _all_equal(bound: Any, number: int) -> bool:
    return bool((torch.as_tensor(bound) == number).all())
