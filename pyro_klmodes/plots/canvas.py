"""Figures of their own, which touch neither pyplot nor the caller's backend."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_klmodes.entries import Fitted
from pyro_klmodes.plots.theme import Look, Theme

__all__ = ["WIDTH", "grid_of_panels", "legend", "new_figure", "png", "tidy"]

DPI = 160
WIDTH = 8.0
LABEL_SIZE = 9
MOST_LETTERS = 110  # of a row of the legend


def new_figure(height: float, theme: Theme) -> Figure:
    """An empty figure of the page's width."""
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor=theme.page)


def grid_of_panels(
    count: int, theme: Theme, *, height: float, most_columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` tidy panels of this height, in rows; places left over are empty."""
    columns = min(most_columns, count)
    rows = -(-count // columns)
    figure = new_figure(height * rows + 0.7, theme)
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels[:count]:
        tidy(panel, theme)
    return figure, panels[:count]


def tidy(panel: Axes, theme: Theme) -> None:
    """No box, a soft grid behind, text in the colours of the page."""
    panel.set_facecolor(theme.page)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(theme.soft)
    panel.tick_params(labelsize=LABEL_SIZE, colors=theme.soft, labelcolor=theme.ink)
    panel.tick_params(axis="y", length=0)
    panel.xaxis.label.set_color(theme.soft)
    panel.yaxis.label.set_color(theme.soft)
    panel.xaxis.label.set_fontsize(LABEL_SIZE)
    panel.yaxis.label.set_fontsize(LABEL_SIZE)
    panel.title.set_color(theme.ink)
    panel.grid(axis="x", color=theme.grid)
    panel.set_axisbelow(True)


def legend(
    figure: Figure,
    fits: Sequence[Fitted],
    fit_looks: Sequence[Look],
    theme: Theme,
    *,
    with_reference: bool = False,
    others: Sequence[Any] = (),
) -> None:
    """Above the panels: every fit, and the reference band."""
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=5.5,
            label=fit.label,
        )
        for fit, look in zip(fits, fit_looks, strict=True)
    ]
    if with_reference:
        handles.append(
            Patch(facecolor=theme.band, edgecolor=theme.reference, label="reference mean ± sd")
        )
    handles += others
    lengths = [len(str(handle.get_label())) + 8 for handle in handles]
    in_one_row = sum(lengths) <= MOST_LETTERS
    columns = len(handles) if in_one_row else max(1, MOST_LETTERS // max(lengths))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=LABEL_SIZE,
        labelcolor=theme.ink,
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return buffer.getvalue()
