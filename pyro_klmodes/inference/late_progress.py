"""A progress bar for fits that are mostly over at once: it appears where one takes longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.inference.calling import shown

__all__ = ["checked_progress", "late_progress"]

#: seconds before there is a bar
_WAIT = 2.0


@contextmanager
def late_progress(
    total: int | None, *, show: bool, wait: float = _WAIT
) -> Iterator[Callable[[str], None]]:
    """Yield a function to call after every step, with what there is to say of it.

    Args:
        total: the most steps there will be; None if that is not known.
        show: whether there is to be a bar at all, on the standard error stream.
        wait: seconds before it appears.
    """
    began = time.monotonic()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
    task = bar.add_task("", total=total, words="")
    done = 0

    def advance(words: str) -> None:
        nonlocal done
        done += 1
        if show and (bar.live.is_started or time.monotonic() - began >= wait):
            bar.start()
            bar.update(task, completed=done, words=words)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def checked_progress(progress: object) -> bool:
    """Whether to show a bar.

    Raises:
        InvalidArgument: if it is neither True nor False.
    """
    if not isinstance(progress, bool):
        raise InvalidArgument(f"progress={shown(progress)} must be True or False.")
    return progress
