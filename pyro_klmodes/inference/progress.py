"""A progress bar with the epoch, the loss and the effective sample size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]

#: steps between two looks where nobody knows how many there will be
_EVERY = 20


@contextmanager
def progress_bar(
    steps: int | None,
    effective_share: Callable[[], float] | None,
    *,
    done: int = 0,
    epochs: int | None = None,
) -> Iterator[Callable[..., None]]:
    """Yield a function to call with the loss, and the epoch if there is one, of every step.

    Args:
        steps: how many steps there will be; None if that is not known.
        effective_share: measures the effective share of particles; looked at fifty times in all.
            Nothing is shown if it is None.
        done: how many of the steps have been taken before.
        epochs: how many epochs there will be, if that is what is counted.
    """
    if effective_share is None:
        yield lambda loss, epoch=None: None
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[epoch]}loss {task.fields[loss]:.4g}"),
        TextColumn("effective {task.fields[share]:.0%} of particles"),
        TimeRemainingColumn(),
    )
    every = _EVERY if steps is None else max(steps // 50, 1)
    with Progress(*columns) as bar:
        nan = float("nan")
        task = bar.add_task("", total=steps, completed=done, loss=nan, share=nan, epoch="")

        def advance(loss: float, epoch: int | None = None) -> None:
            nonlocal done
            done += 1
            if done % every == 0:
                of = "" if epochs is None else f" of {epochs}"
                words = "" if epoch is None else f"epoch {epoch + 1}{of}, "
                share = effective_share()
                bar.update(task, completed=done, loss=loss, share=share, epoch=words)

        yield advance
