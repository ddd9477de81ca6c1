"""Whether what a step reads in Python is still what it was, from step to step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from pyro.poutine.runtime import _PYRO_STACK
from torch.nn import Module

from pyro_klmodes.engine.calls import Arguments
from pyro_klmodes.engine.python_state import PythonState

__all__ = ["Watch", "outer_handler"]

#: attributes of a loss that change from step to step, as dials do, or hold what is found out again
_OWN = ("step", "_layouts", "_dialled")
#: the first run may set things up, the second one may not
_MOST_EAGER = 2


class Watch:
    """Looks at Python's state around eager steps, and before compiled ones.

    Args:
        model: the model.
        guide: the guide.
        loss: the loss, whose attributes count too.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], loss: object) -> None:
        self._model, self._guide, self._loss = model, guide, loss
        self._modules: Sequence[Module] = ()
        self._around: _Look | None = None
        self._eager = 0
        self._since: dict[Hashable, _Look] = {}

    def before_eager(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Look at everything before a step of eager code, also at its arguments."""
        arguments = Arguments.of(args, kwargs)
        self._around = _Look({**arguments.objects, **arguments.named_tensors}, self._state)

    def changed_by_eager(self) -> str | None:
        """What the last eager step has changed, None if nothing, or nobody looked."""
        self._eager += 1
        changed = None if self._around is None else self._around.changed()
        self._around = None
        return changed

    @property
    def waits(self) -> bool:
        """Whether what an eager step has changed may have been set up once and for all."""
        return self._eager < _MOST_EAGER

    def begin(self, kind: Hashable, arguments: Arguments, modules: Sequence[Module]) -> None:
        """A step was written down for one kind of arguments."""
        self._modules = modules
        self._since[kind] = _Look(arguments.objects, self._state)

    def changed(self, kind: Hashable) -> str | None:
        """What has changed since that, None if nothing."""
        return self._since[kind].changed()

    def _state(self, named: Mapping[str, Any]) -> PythonState:
        own = {
            f"'{name.lstrip('_')}' of the loss": value
            for name, value in vars(self._loss).items()
            if name not in _OWN
        }
        return PythonState(self._model, self._guide, *self._modules, **own, **named)


class _Look:
    """A state, and the way to look again; attributes of the loss may be other objects then."""

    def __init__(
        self, named: Mapping[str, Any], look: Callable[[Mapping[str, Any]], PythonState]
    ) -> None:
        self._named, self._look = named, look
        self._before = look(named)

    def changed(self) -> str | None:
        """The name of something that is not as it was, None if there is nothing."""
        return self._before.difference(self._look(self._named).values)


def outer_handler() -> str | None:
    """The kind of a Pyro handler that is active around everything, None if there is none."""
    return type(_PYRO_STACK[0]).__name__ if _PYRO_STACK else None
