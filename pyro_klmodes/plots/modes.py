"""How much mass each fit gives to each mode."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pyro_klmodes.entries import Results
from pyro_klmodes.entries.mode_masses import mode_masses
from pyro_klmodes.plots.canvas import legend, new_figure, tidy
from pyro_klmodes.plots.theme import LIGHT, Theme, looks

__all__ = ["modes"]

MOST_MODES = 12


def modes(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Mass of every mode under every fit, beside what a search without any guide found.

    How to read it: bars should be as high as the grey ones; a bar that is missing is a mode that
    the fit misses.

    Returns:
        None if fewer than two modes were found, or nobody looked.
    """
    masses = mode_masses(results)
    if masses is None:
        return None
    all_looks = looks(results.fits, theme, results.reference.label)
    fit_looks = [all_looks[results.fits.index(fit)] for fit in masses.fits]
    truth = masses.found
    count, groups = min(len(truth), MOST_MODES), len(masses.fits) + 1
    figure = new_figure(3.2, theme)
    panel = figure.subplots()
    tidy(panel, theme)
    width = 0.8 / groups
    places = np.arange(count) - 0.4 + width / 2
    panel.bar(
        places, truth[:count], width=0.94 * width, color=theme.band, edgecolor=theme.reference
    )
    for n, (look, shares) in enumerate(zip(fit_looks, masses.of_fits, strict=True), start=1):
        at = places + n * width
        panel.bar(at, shares[:count], width=0.94 * width, color=look.colour)
        for x, share in zip(at, shares[:count], strict=True):
            if share < 0.005:  # a bar that cannot be seen
                panel.text(x, 0.01, "0", ha="center", fontsize=8, color=theme.ink)
    panel.set_xticks(range(count), [f"mode {m + 1}" for m in range(count)])
    panel.grid(visible=False, axis="x")
    panel.grid(axis="y", color=theme.grid)
    panel.set_ylim(0.0, 1.05 * max(truth.max(), masses.of_fits.max()))
    panel.set_ylabel("share of the mass")
    search = Patch(facecolor=theme.band, edgecolor=theme.reference, label="found without a guide")
    legend(figure, masses.fits, fit_looks, theme, others=[search])
    return figure
