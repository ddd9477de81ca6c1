"""The torch modules that a pair consists of: their buffers, and switching them to evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["Modules", "called_modules", "evaluating", "module_of"]


def module_of(function: Callable[..., Any]) -> Module | None:
    """The module that a model or guide is, or is a method of."""
    bare = poutine.unwrap(function)
    if isinstance(bare, Module):
        return bare
    owner = getattr(bare, "__self__", None)
    return owner if isinstance(owner, Module) else None


@contextmanager
def called_modules() -> Iterator[list[Module]]:
    """Yield a list to which every module is added when it is first called inside.

    This also finds modules that a model or guide holds in a closure or a global name.
    """
    called: list[Module] = []
    seen: set[int] = set()

    def note(module: Module, inputs: Any) -> None:
        if id(module) not in seen:
            seen.add(id(module))
            called.append(module)

    handle = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        handle.remove()


@contextmanager
def evaluating(*functions: Callable[..., Any]) -> Iterator[None]:
    """Have all modules behave as in evaluation inside: no dropout, running averages that stay.

    Args:
        *functions: models and guides; modules that are not found in them are switched when they are
            called.
    """
    switched: list[Module] = []

    def switch(module: Module, inputs: Any) -> None:
        if module.training:
            module.training = False
            switched.append(module)

    for root in map(module_of, functions):
        for module in root.modules() if root is not None else ():
            switch(module, None)
    handle = register_module_forward_pre_hook(switch)
    try:
        yield
    finally:
        handle.remove()
        for module in switched:
            module.training = True


class Modules:
    """The modules of a model and a guide, and those that they have called.

    Args:
        model: a Pyro model.
        guide: a guide for it.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        roots = {"model": module_of(model), "guide": module_of(guide)}
        self._roots = {label: m for label, m in roots.items() if m is not None}

    def add_called(self, called: list[Module]) -> None:
        """Add modules in the order of their first call, which is that of their names."""
        for module in called:
            if all(module is not known for known in self._everything()):
                self._roots[f"{len(self._roots)}.{type(module).__name__}"] = module

    def roots(self) -> list[Module]:
        """The modules that are no part of another one here."""
        return list(self._roots.values())

    def buffers(self) -> dict[str, Tensor]:
        """All buffers by name, running averages for instance."""
        found: dict[str, Tensor] = {}
        known: set[int] = set()
        for label, root in self._roots.items():
            for name, buffer in root.named_buffers():
                if id(buffer) not in known:
                    known.add(id(buffer))
                    found[f"{label}.{name}"] = buffer
        return found

    def _everything(self) -> Iterator[Module]:
        for root in self._roots.values():
            yield from root.modules()
