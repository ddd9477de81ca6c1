"""A training on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pyro_klmodes.training.run import Settings, Trained
from pyro_klmodes.training.task import Task

__all__ = ["summary_table"]


def summary_table(task: Task, settings: Settings, trained: Trained) -> Table:
    """A line per thing to know."""
    result = trained.result
    table = Table(box=SIMPLE_HEAD, show_header=False, padding=(0, 1, 0, 0))
    table.add_row("model", task.name)
    particles = getattr(result.loss, "num_particles", None)
    of = "" if particles is None else f", {particles} particle{'s' if particles != 1 else ''}"
    table.add_row("loss", f"{settings.loss}{of}")
    table.add_row("trained", f"{result.epochs} epochs, {result.steps} steps")
    table.add_row("time", f"{result.seconds:.1f} s")
    bound = trained.held_out
    if bound is not None:
        table.add_row(
            "held-out bound",
            f"{bound.bound:.4f} ± {bound.standard_error:.4f} per datum, "
            f"{bound.num_particles} draws each",
        )
    if bound is not None and trained.exact is not None:
        gap = trained.exact - bound.bound
        table.add_row("exact", f"{trained.exact:.4f} per datum, {gap:+.4f} from the bound")
    return table
