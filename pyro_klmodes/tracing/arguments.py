"""The tensors among the arguments of a model, wherever they lie in them, and others instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["Path", "by_place", "described", "replaced", "tensors_in"]

Path = tuple[Any, ...]  # position or name of an argument, then keys and indices inside of it


def by_place(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    """All arguments by position or name."""
    found: dict[int | str, Any] = dict(enumerate(args))
    found.update(kwargs)
    return found


def tensors_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor among the arguments, inside of lists, tuples and mappings too.

    Example:
        >>> import torch
        >>> [path for path, _ in tensors_in((torch.ones(2), [torch.zeros(1)]), {"n": 3})]
        [(0,), (1, 0)]
    """
    for place, x in by_place(args, kwargs).items():
        yield from _inside((place,), x)


def replaced(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], new: Mapping[Path, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other tensors in some places; nothing is changed in place."""
    found = by_place(args, kwargs)
    for path, value in new.items():
        found[path[0]] = _with(found[path[0]], path[1:], value)
    return tuple(found[i] for i in range(len(args))), {name: found[name] for name in kwargs}


def described(path: Path) -> str:
    """A place in words, for messages."""
    inside = "".join(f"[{key!r}]" for key in path[1:])
    return f"argument {path[0]!r}{inside}"


def _inside(path: Path, x: Any) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(x, Tensor):
        yield path, x
    elif isinstance(x, Mapping):
        for key, value in x.items():
            yield from _inside((*path, key), value)
    elif isinstance(x, list | tuple):
        for key, value in enumerate(x):
            yield from _inside((*path, key), value)


def _with(x: Any, path: Path, value: Tensor) -> Any:
    if not path:
        return value
    key, *rest = path
    if isinstance(x, Mapping):
        return {**x, key: _with(x[key], tuple(rest), value)}
    items = [_with(y, tuple(rest), value) if i == key else y for i, y in enumerate(x)]
    # a named tuple takes its fields one by one
    return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
