"""``python -m benchmarks.engine [--quick] [--model NAME] [--update] ...``."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import click

from benchmarks.engine.client import workers
from benchmarks.engine.end_to_end import WHOLE, WHOLE_STEPS, time_whole
from benchmarks.engine.entrants import OTHERS, entrants, missing
from benchmarks.engine.grid import grid, quick
from benchmarks.engine.measure import measure
from benchmarks.engine.store import STORED, add, header, load
from benchmarks.engine.tables import report
from benchmarks.table import update

NEW = Path("build/engine.json")
README = Path(__file__).parents[1] / "README.md"


@click.command()
@click.option("--quick", "smoke", is_flag=True, help="A smoke run: K = 16, few and short turns.")
@click.option("--model", default="", help="Only models whose name contains this.")
@click.option("--case", default="", help="Only cells whose label contains this.")
@click.option("--only", multiple=True, help="Only this contestant; may be given several times.")
@click.option("--rounds", default=9, show_default=True, help="Turns of every contestant.")
@click.option("--seconds", default=0.1, show_default=True, help="Processor time of a turn.")
@click.option("--resume", is_flag=True, help="Skip cells that are in the file already.")
@click.option(
    "--out", default=NEW, show_default=True, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--update", "write", is_flag=True, help="Store the file, and renew the README.")
def main(
    smoke: bool,
    model: str,
    case: str,
    only: tuple[str, ...],
    rounds: int,
    seconds: float,
    resume: bool,
    out: Path,
    write: bool,
) -> None:
    """Time whole training steps of Pyro, NumPyro, torch by hand and this package."""
    cells = [c for c in (quick() if smoke else grid()) if model in c.model and case in c.label]
    if not cells:
        raise click.BadParameter("no cell is called like that.", param_hint="--model or --case")
    if smoke and write:
        raise click.BadParameter("a smoke run is not stored.", param_hint="--update")
    if smoke:
        rounds, seconds = 2, 0.02
    names = _contestants(only)
    head = header(rounds=rounds, seconds=seconds)
    if not resume:
        out.unlink(missing_ok=True)
    with workers() as group:
        for cell in cells:
            if not (resume and out.exists() and cell.label in load(out)["cells"]):
                start = monotonic()
                result = measure(cell, names, group, rounds=rounds, seconds=seconds)
                add(out, head, "cells", cell.label, result)
                _say(f"{cell.label}: {_line(result)} ({monotonic() - start:.0f} s)")
    # New processes with empty caches: nothing of the grid helps them.
    done = load(out)["whole"] if resume else {}
    if not smoke and WHOLE in cells and WHOLE.label not in done:
        with workers() as group:
            _say(f"{WHOLE.label}: whole runs of {WHOLE_STEPS:,} steps")
            whole = time_whole(WHOLE, WHOLE_STEPS, group, load(out)["cells"][WHOLE.label])
            add(out, head, "whole", WHOLE.label, whole)
    text = report(load(out))
    click.echo(text)
    if write:
        STORED.write_text(out.read_text(encoding="utf-8"), encoding="utf-8")
        update(README, text, "engine")


def _contestants(only: tuple[str, ...]) -> list[str]:
    """Those that can run here, and a word about those that cannot."""
    for name in OTHERS:
        if missing(name):
            _say(f"Without {name}: {' and '.join(missing(name))} not installed.")
    unknown = set(only) - set(entrants())
    if unknown:
        raise click.BadParameter(
            f"{', '.join(sorted(unknown))} cannot run here; known are {', '.join(entrants())}.",
            param_hint="--only",
        )
    return [name for name in entrants() if not only or name in only]


def _line(result: dict[str, Any]) -> str:
    costs = [f"{name} {cost:.4g} us" for name, cost in result["step"].items()]
    return ", ".join(costs + [f"{name} failed" for name in result["failed"]])


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
