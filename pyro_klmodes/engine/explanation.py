"""How the steps of a fit were run, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Explanation"]


@dataclass
class Explanation:
    """What an engine did.

    Attributes:
        asked: the engine that was asked for.
        used: how many steps were run by what, by name.
        reason: why it was that.
        cause: what kept steps from being compiled, None if nothing did.
        seconds: what getting ready took, by what was done.
        operations: of the step as it was lifted and as it was run; None before that.
        peak_bytes: the most that results of these operations take up at once, when they run one
            after the other; None before that.
    """

    asked: str
    used: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    cause: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    operations: tuple[int, int] | None = None
    peak_bytes: int | None = None

    def count(self, engine: str, steps: int) -> None:
        """Note that so many steps were run by an engine."""
        self.used[engine] = self.used.get(engine, 0) + steps

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[what] = self.seconds.get(what, 0.0) + took

    def __str__(self) -> str:
        shares = ", ".join(f"{n} by {name}" for name, n in self.used.items()) or "none yet"
        lines = [f"engine={self.asked!r}: steps {shares}.", self.reason]
        if self.cause is not None:
            lines.append(f"Not compiled: {self.cause}.")
        if self.operations is not None:
            lines.append("The step has {} operations, {} after clean-up.".format(*self.operations))
        if self.peak_bytes is not None:
            size = _in_units(self.peak_bytes)
            lines.append(f"One after the other, their results take up {size} at most.")
        if self.seconds:
            took = ", ".join(f"{what} {s:.1f} s" for what, s in self.seconds.items())
            lines.append(f"Getting ready: {took}.")
        return "\n".join(line for line in lines if line)


def _in_units(size: float) -> str:
    """Bytes with a unit of a thousand each."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
