"""Whether a distribution and a value are allowed, as a tensor: without any branch on values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

__all__ = ["CollectAllowed", "allowed"]


class CollectAllowed(Messenger):
    """Collects of all sites inside whether they are allowed, instead of raising errors.

    For a step that is written down as a graph, which must not branch.

    Attributes:
        found: scalars, or one number for every particle of a mapped model.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._paused = False

    @staticmethod
    def active() -> CollectAllowed | None:
        """The one that is entered, if there is one."""
        return next((h for h in _PYRO_STACK if isinstance(h, CollectAllowed)), None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave sites alone whose tensors must not leave the place where they are."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _pyro_post_sample(self, msg: Any) -> None:
        if not self._paused and not site_is_subsample(msg):
            with torch.no_grad():
                self.found.append(allowed(msg))


def allowed(
    site: Mapping[str, Any],
) -> Tensor:  # scalar, bool
    """Whether a site's value lies in the support, and parameters where they must.

    What distributions check by themselves where they may branch on values. Where nothing is known
    of a support, or shapes do not fit, all is allowed: the log-density says the rest. That numbers
    are numbers is checked of data only, as any other nan shows in the log-density.
    """
    fn, value = site["fn"], site["value"]
    good = torch.ones((), dtype=torch.bool)
    if isinstance(value, Tensor):
        checked = _check(getattr(fn, "support", None), value, numbers=site["is_observed"])
        good = good if checked is None else good & checked.all()
    while fn is not None:
        for name, constraint in getattr(fn, "arg_constraints", {}).items():
            if name in vars(fn):  # others are computed from those
                checked = _check(constraint, vars(fn)[name], numbers=False)
                good = good if checked is None else good & checked.all()
        fn = getattr(fn, "base_dist", None)
    return good


def _check(constraint: Any, value: Any, *, numbers: bool) -> Tensor | None:
    """Where a constraint holds, None where it says nothing."""
    if constraint is None or constraints.is_dependent(constraint) or not isinstance(value, Tensor):
        return None
    if not numbers and _is_real(constraint):
        return None
    try:
        checked: Tensor = constraint.check(_once(value))
    except (NotImplementedError, AttributeError, RuntimeError):
        return None
    return checked


def _once(x: Tensor) -> Tensor:
    """A tensor without the repetitions that expanding it has made."""
    for dim in range(x.dim()):
        if x.size(dim) > 1 and x.stride(dim) == 0:
            x = x.narrow(dim, 0, 1)
    return x


def _is_real(constraint: Any) -> bool:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint is constraints.real
