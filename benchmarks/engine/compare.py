"""``python -m benchmarks.engine.compare NEW [OLD]``: what became slower.

A ratio "NumPyro / inductor" says how many times as long as this package's tier the other takes, so
a regression is a ratio that fell. Ratios of others to each other are no concern of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.engine.entrants import OTHERS
from benchmarks.engine.store import STORED, load
from benchmarks.table import markdown

__all__ = ["TOLERANCE", "Change", "main", "regressions", "unmeasured"]

TOLERANCE = 0.2


@dataclass(frozen=True)
class Change:
    """One ratio, before and after.

    Attributes:
        cell: its label.
        ratio: "other / tier".
        before: median and quartiles.
        after: median and quartiles.
    """

    cell: str
    ratio: str
    before: list[float]
    after: list[float]

    @property
    def slower(self) -> float:
        """By what share the tier became slower against the other."""
        return self.before[0] / self.after[0] - 1

    @property
    def apart(self) -> bool:
        """Whether the quartiles do not overlap, so that chance is an unlikely cause."""
        return self.after[2] < self.before[1]


def regressions(
    old: dict[str, Any], new: dict[str, Any], tolerance: float = TOLERANCE
) -> list[Change]:
    """Ratios against others that fell by more than the tolerance, the worst first."""
    changes = [
        Change(cell, ratio, before, new["cells"][cell]["ratios"][ratio])
        for cell, result in old["cells"].items()
        if cell in new["cells"]
        for ratio, before in result["ratios"].items()
        if _is_ours(ratio) and ratio in new["cells"][cell]["ratios"]
    ]
    worse = [change for change in changes if change.slower > tolerance]
    return sorted(worse, key=lambda change: -change.slower)


def unmeasured(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Ratios of ours that are stored for a cell that ran, and are not there any more."""
    return [
        f"{cell}: {ratio}"
        for cell, result in old["cells"].items()
        if cell in new["cells"]
        for ratio in result["ratios"]
        if _is_ours(ratio) and ratio not in new["cells"][cell]["ratios"]
    ]


def _is_ours(ratio: str) -> bool:
    other, tier = ratio.split(" / ")
    return other in OTHERS and tier not in OTHERS


@click.command()
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("old", type=click.Path(dir_okay=False, path_type=Path), default=STORED)
@click.option("--strict", is_flag=True, help="Exit with status 1 if anything regressed.")
def main(new: Path, old: Path, strict: bool) -> None:
    """Compare the ratios of a NEW file with those of an OLD one, by default the stored one."""
    if not old.exists():
        click.echo(f"There is no {old.name} to compare with yet.")
        return
    before, after = load(old), load(new)
    for key in ("versions", "processor", "settings"):
        if before[key] != after[key]:
            click.echo(f"Note: {key} differ: {before[key]} then, {after[key]} now.")
    worse, gone = regressions(before, after), unmeasured(before, after)
    common = len(before["cells"].keys() & after["cells"].keys())
    click.echo(f"{common} cells in both files; {len(worse)} ratios fell by more than 20 %.")
    if worse:
        rows = [
            [
                change.cell.replace(" | ", ", "),
                change.ratio,
                f"{change.before[0]:.3g}",
                f"{change.after[0]:.3g}",
                f"{100 * change.slower:.0f} %",
                "" if change.apart else "quartiles overlap",
            ]
            for change in worse
        ]
        click.echo(markdown(["cell", "ratio", "stored", "now", "slower by", ""], rows))
    for line in gone:
        click.echo(f"Not measured any more: {line}")
    if strict and (worse or gone):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
