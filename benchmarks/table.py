"""Results as Markdown tables, and their place in a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.timing import Timing

__all__ = ["BEGIN", "END", "cost_cell", "markdown", "ratio_cell", "update"]

BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio_cell(timing: Timing | None) -> str:
    """Median ratio and its quartiles."""
    if timing is None or timing.ratio is None or timing.spread is None:
        return "–"
    low, high = timing.spread
    return f"{timing.ratio:.2f} ({low:.2f}–{high:.2f})"


def cost_cell(timing: Timing | None) -> str:
    """Milliseconds per step."""
    return "–" if timing is None else f"{timing.ours * 1e3:.1f}"


def update(path: Path, text: str, part: str = "results") -> None:
    """Put a text between the two marks of a part of a file, in place of what is there."""
    begin, end = (mark.replace("results", part) for mark in (BEGIN, END))
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
