"""The decision guide as a flow chart: questions on the left, answers with their numbers right."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from tutorial_tools import COLOURS

__all__ = ["Step", "flow_chart"]

LEFT, RIGHT = (0.01, 0.30), (0.38, 0.61)  # where a column begins, and how wide it is
HEIGHT, GAP = 0.78, 0.34


@dataclass(frozen=True)
class Step:
    """A question, what to do if the answer is yes, the number for it and where that fails."""

    question: str
    take: str
    measured: str
    fails: str


def flow_chart(steps: list[Step], otherwise: str, uses: list[tuple[str, str]]) -> None:
    """Draw it.

    Args:
        steps: from the first question to the last.
        otherwise: what is left if every answer was no.
        uses: for each use of the posterior what to take for it, and the number.
    """
    bottom = HEIGHT + 0.3 * (len(uses) - 2)
    top = len(steps) * (HEIGHT + GAP) + bottom
    _, ax = plt.subplots(figsize=(8.5, 0.9 * top))
    ax.set(xlim=(0, 1), ylim=(-0.05, top + 0.05))
    ax.axis("off")
    y = top
    for step in steps:
        y -= HEIGHT
        middle = y + HEIGHT / 2
        _box(ax, LEFT, y, HEIGHT, COLOURS["target"])
        _text(ax, LEFT[0] + LEFT[1] / 2, middle, step.question, ha="center")
        _box(ax, RIGHT, y, HEIGHT, COLOURS["importance"])
        at = RIGHT[0] + 0.015
        _text(ax, at, y + 0.79 * HEIGHT, step.take, weight="bold")
        _text(ax, at, middle, step.measured)
        _text(ax, at, y + 0.21 * HEIGHT, step.fails, color=COLOURS["forward"])
        _arrow(ax, (sum(LEFT), middle), (RIGHT[0], middle))
        _text(ax, (sum(LEFT) + RIGHT[0]) / 2, middle + 0.12, "yes", ha="center")
        _arrow(ax, (LEFT[0] + LEFT[1] / 2, y), (LEFT[0] + LEFT[1] / 2, y - GAP))
        _text(ax, LEFT[0] + LEFT[1] / 2 + 0.015, y - GAP / 2, "no")
        y -= GAP
    _box(ax, LEFT, 0, bottom, COLOURS["target"])
    _text(ax, LEFT[0] + LEFT[1] / 2, bottom / 2, otherwise, ha="center")
    _box(ax, RIGHT, 0, bottom, COLOURS["importance"])
    for i, (use, take) in enumerate(uses):
        line = bottom * (1 - (i + 0.5) / len(uses))
        _text(ax, RIGHT[0] + 0.015, line, use, weight="bold")
        _text(ax, RIGHT[0] + 0.16, line, take)
    _arrow(ax, (sum(LEFT), bottom / 2), (RIGHT[0], bottom / 2))


def _box(ax, column, y, height, colour) -> None:
    pad = 0.01
    corner, width = (column[0] + pad, y + pad), column[1] - 2 * pad
    style = f"round,pad={pad}"
    ax.add_patch(FancyBboxPatch(corner, width, height - 2 * pad, boxstyle=style, fc="white",
                                ec=colour, lw=1.4))  # fmt: skip


def _text(ax, x, y, text, ha="left", **look) -> None:
    ax.text(x, y, text, ha=ha, va="center", fontsize=8.5, **look)


def _arrow(ax, start, end) -> None:
    look = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)
