"""A progress bar with the loss and the effective sample size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(
    steps: int,
    effective_share: Callable[[], float] | None,
) -> Iterator[Callable[[float], None]]:
    """Yield a function to call with the loss of every step; shows nothing without the second.

    Args:
        steps: how many steps there will be.
        effective_share: measures the effective share of particles; looked at fifty times in all.
    """
    if effective_share is None:
        yield lambda loss: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TextColumn("effective {task.fields[share]:.0%} of particles"),
        TimeRemainingColumn(),
    )
    every = max(steps // 50, 1)
    with Progress(*columns) as bar:
        task = bar.add_task("", total=steps, loss=float("nan"), share=float("nan"))
        done = 0

        def advance(loss: float) -> None:
            nonlocal done
            done += 1
            if done % every == 0:
                bar.update(task, completed=done, loss=loss, share=effective_share())

        yield advance
