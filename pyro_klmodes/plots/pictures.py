"""Pictures side by side: samples of a model, or data and their reconstructions."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pyro_klmodes.plots.canvas import WIDTH, new_figure
from pyro_klmodes.plots.theme import LIGHT, Theme

__all__ = ["pictures"]

GAP = 1  # pixels between two pictures
LARGEST = 0.8  # inches: two pictures of 8 by 8 need no page


def pictures(
    *groups: np.ndarray,  # (N, height, width) each, grey values from 0 to 1
    columns: int,
    theme: Theme = LIGHT,
) -> Figure:
    """Rows of pictures, in which rows of the groups alternate: the first above the second.

    One is the colour of the text, zero that of the page, and so are gaps and places left over.
    """
    count, height, width = groups[0].shape
    columns = min(columns, count)
    tall, wide = height + GAP, width + GAP
    rows = [
        group[start : start + columns] for start in range(0, count, columns) for group in groups
    ]
    # One image of all of them: a hundred axes would take seconds to lay out.
    mosaic = np.full((len(rows) * tall - GAP, columns * wide - GAP), np.nan)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            mosaic[i * tall : i * tall + height, j * wide : j * wide + width] = picture
    size = min(WIDTH / columns, LARGEST)
    figure = new_figure(len(rows) * size * tall / wide, theme)
    figure.set_figwidth(columns * size)
    panel = figure.subplots()
    panel.set_axis_off()
    shades = LinearSegmentedColormap.from_list("page", [theme.page, theme.ink])
    panel.imshow(mosaic, cmap=shades, vmin=0.0, vmax=1.0, interpolation="nearest")
    return figure
