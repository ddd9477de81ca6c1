"""What can be read through a Python object: what its code names, and what it is made of."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from pyro_klmodes.engine.fingerprints import LONGEST

__all__ = ["inside"]

#: packages whose objects are not looked into
_FOREIGN = ("torch", "pyro", "numpy", "pyro_klmodes", "builtins", "_abc", "abc", "typing", "zuko")
#: what torch and Pyro keep in every module
_OF_MODULES = (*torch.nn.Module().__dict__, "_pyro_name", "_pyro_context")

Named = Iterator[tuple[str, Any]]


def inside(name: str, x: Any) -> Named:
    """Parts of an object by name, as far as they are the user's own."""
    if isinstance(x, types.MethodType):
        yield name, x.__func__
        yield f"self of {x.__func__.__name__}", x.__self__
    elif isinstance(x, types.FunctionType):
        yield from _of_function(name, x)
    elif isinstance(x, staticmethod | classmethod):
        yield name, x.__func__
    elif isinstance(x, property | functools.cached_property):
        yield name, x.fget if isinstance(x, property) else x.func
    elif isinstance(x, functools.partial):
        yield name, x.func
        yield from ((f"argument {i} of partial", v) for i, v in enumerate(x.args))
        yield from ((f"argument '{k}' of partial", v) for k, v in x.keywords.items())
    elif isinstance(x, list | tuple | set | frozenset | deque):
        yield from ((f"{name}[{i}]", v) for i, v in enumerate(islice(x, LONGEST)))
        yield from _of_object(name, x)
    elif isinstance(x, Mapping):
        yield from ((f"{name}[{k!r}]", v) for k, v in islice(x.items(), LONGEST))
        yield from _of_object(name, x)
    elif isinstance(x, torch.nn.Module):
        yield from _of_module(name, x)
    elif isinstance(x, Messenger):
        yield from _attributes(name, x, ())
    elif isinstance(x, type):
        yield from _of_class(x)
    elif not isinstance(x, types.ModuleType):
        yield from _of_object(name, x)
        if hasattr(x, "__wrapped__"):
            yield name, x.__wrapped__


def _of_module(name: str, x: torch.nn.Module) -> Named:
    label = name or type(x).__name__
    yield f"'training' of {label}", x.training
    yield from ((f"'{k}' of {label}", part) for k, part in x._modules.items())
    yield from ((f"'{k}' of {label}", part) for k, part in x._buffers.items())
    yield from _of_object(name, x)


def _of_object(name: str, x: Any) -> Named:
    """Attributes of an object, and its class, unless they are of a library."""
    if _foreign(type(x).__module__):
        return
    yield from _attributes(name, x, _OF_MODULES if isinstance(x, torch.nn.Module) else ())
    yield type(x).__name__, type(x)


def _attributes(name: str, x: Any, but: Iterable[str]) -> Named:
    owner = name or type(x).__name__
    slots = [s for cls in type(x).__mro__ for s in _as_tuple(cls.__dict__.get("__slots__", ()))]
    values = {
        **{s: getattr(x, s) for s in slots if not s.startswith("__") and hasattr(x, s)},
        **getattr(x, "__dict__", {}),
    }
    yield from ((f"attribute '{k}' of {owner}", v) for k, v in values.items() if k not in but)


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _of_class(x: type) -> Named:
    """What a class and those that it is derived from define, but for libraries' own."""
    if not _users(x.__module__):
        return
    for key, value in vars(x).items():
        if not (key.startswith("__") and key.endswith("__")) or isinstance(
            value, types.FunctionType
        ):
            yield f"attribute '{key}' of class {x.__name__}", value
    yield from ((base.__name__, base) for base in x.__bases__)


def _of_function(name: str, x: types.FunctionType) -> Named:
    if _foreign(x.__module__):  # a decorator of a library around a function of the user's
        yield from ((name, c.cell_contents) for c in x.__closure__ or () if _filled(c))
    else:
        yield from _read_by(x)
    for key, value in vars(x).items():
        yield name if key == "__wrapped__" else f"attribute '{key}' of {x.__name__}", value


def _read_by(function: types.FunctionType) -> Named:
    """Global names, closures and defaults of a function and those defined in it."""
    label = function.__name__
    closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    yield from ((f"'{n}' around {label}", c.cell_contents) for n, c in closure if _filled(c))
    yield from ((f"a default of {label}", d) for d in function.__defaults__ or ())
    yield from (
        (f"default '{k}' of {label}", d) for k, d in (function.__kwdefaults__ or {}).items()
    )
    names = set(_names(function.__code__))
    for n in sorted(names & function.__globals__.keys()):
        value = function.__globals__[n]
        if isinstance(value, types.ModuleType):
            yield from _read_in(value, n, names, depth=2)
        else:
            yield f"global '{n}' of {label}", value


def _read_in(module: types.ModuleType, name: str, names: set[str], depth: int) -> Named:
    """What code may read in a module of the user's by ``module.name``."""
    if not _users(module.__name__):
        return
    for key in sorted(names & vars(module).keys()):
        value = vars(module)[key]
        if not isinstance(value, types.ModuleType):
            yield f"'{name}.{key}'", value
        elif depth:
            yield from _read_in(value, f"{name}.{key}", names, depth - 1)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that is bound later
        return False


def _foreign(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in _FOREIGN


def _users(module: str | None) -> bool:
    return not _foreign(module) and (module or "").split(".")[0] not in sys.stdlib_module_names
