"""What a model or guide reads in Python beside tensors: counters, flags, generators, attributes.

A graph holds such values as they were when it was made. If a run changes them, or anybody does
later, the graph is no longer what the code says.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pyro_klmodes.engine.fingerprints import fingerprint, state_of
from pyro_klmodes.engine.reach import inside

__all__ = ["PythonState"]

#: how many values are watched; nobody knows what is among further ones
_MOST = 20_000


class PythonState:
    """Values that some functions can read, by the name under which they read them.

    Followed are global names, closures, defaults, attributes of objects, classes and functions, and
    the functions and objects found there, as far as they are the user's own. Tensors count by which
    they are and how often they were changed in place; those that are learned do not count.

    Args:
        *functions: models, guides, modules.
        **named: further values by name.

    Attributes:
        values: what there is to compare, by name, and which one of this name.

    Example:
        >>> settings = {"level": 1}
        >>> state = PythonState(**{"the settings": settings})
        >>> settings["level"] = 2
        >>> state.changed()
        "the settings['level']"
    """

    def __init__(self, *functions: Any, **named: Any) -> None:
        self._roots = [*(("", f) for f in functions), *named.items()]
        self.values = self._now()

    def changed(self) -> str | None:
        """The name of a value that is not what it was, or None."""
        return self.difference(self._now())

    def difference(self, now: Mapping[tuple[str, int], Any]) -> str | None:
        """The name of a value that is another one in a later state of the same things, or None."""
        for key, value in self.values.items():
            if key in now and now[key] != value:
                return key[0]
        return next((key[0] for key in now if key not in self.values), None)

    def _now(self) -> dict[tuple[str, int], Any]:
        """By name, and which of those of this name it is: two objects may have one."""
        found: dict[tuple[str, int], Any] = {}
        often: dict[str, int] = {}
        for name, value in self._values():
            often[name] = often.get(name, -1) + 1
            found[name, often[name]] = value
        return found

    def _values(self) -> Iterator[tuple[str, Any]]:
        yield "numpy's random generator", state_of(np.random.get_state())
        yield "Python's random generator", random.getstate()
        yield "torch's default data type", torch.get_default_dtype()
        seen: set[int] = set()
        found = 0
        queue = deque(self._roots)
        while queue:
            name, x = queue.popleft()
            value, plain = fingerprint(x)
            if not plain and id(x) in seen:
                continue
            seen.add(id(x))
            if name and value is not None:
                found += 1
                yield name, value
            if found > _MOST:
                yield "more values than can be watched", object()
                return
            if not plain:
                queue.extend(inside(name, x))
