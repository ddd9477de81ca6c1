"""Constraints of parameters as plain data, so that reading a file runs no code from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_klmodes.errors import InvalidArgument

__all__ = ["constraint_of", "encode"]

#: classes of these modules are made of numbers and of each other
_KNOWN = ("torch.distributions.constraints", "pyro.distributions.constraints")


def encode(constraint: Any) -> dict[str, Any]:
    """A constraint as the name of its class and what it is made of."""
    kind = type(constraint)
    known = kind.__module__ in _KNOWN
    attributes = _attributes(constraint) if known else {}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "attributes": attributes}


def constraint_of(code: Mapping[str, Any]) -> Constraint:
    """The constraint that was encoded.

    Raises:
        InvalidArgument: for a class that is none of torch's or Pyro's constraints.
    """
    module, _, name = code["class"].rpartition(".")
    kind = getattr(import_module(module), name, None) if module in _KNOWN else None
    if not (isinstance(kind, type) and issubclass(kind, Constraint)):
        raise InvalidArgument(f"the constraint {code['class']} is none of torch's or Pyro's.")
    constraint = kind.__new__(kind)
    constraint.__dict__.update({n: _decoded(x) for n, x in code["attributes"].items()})
    return constraint


def _attributes(constraint: Any) -> dict[str, Any]:
    return {name: _encoded(x) for name, x in vars(constraint).items()}


def _encoded(value: Any) -> Any:
    if isinstance(value, Constraint):
        return encode(value)
    if isinstance(value, list | tuple):
        return [_encoded(x) for x in value]
    return value.detach() if isinstance(value, Tensor) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return constraint_of(value)
    return [_decoded(x) for x in value] if isinstance(value, list) else value
