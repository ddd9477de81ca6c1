"""Posterior densities of all fits over each other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_klmodes import inference_data
from pyro_klmodes.entries import Results
from pyro_klmodes.plots.canvas import grid_of_panels, legend
from pyro_klmodes.plots.draws import SPIKE, Columns, visible_range
from pyro_klmodes.plots.theme import LIGHT, Look, Theme, looks

__all__ = ["density"]

MOST_PANELS = 12
TAIL = 0.01


def density(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Posterior density of the first 12 parameters under every fit, one panel per parameter.

    The reference is a vertical line at its mean with a band of one standard deviation to each side.
    Integer-valued and constant parameters have no density.

    How to read it: curves that lie on each other agree; a curve much narrower than the band covers
    a part of the posterior only.

    Returns:
        None if no parameter has a density.
    """
    columns = Columns(results)
    parameters = columns.continuous(results, MOST_PANELS)
    if not parameters:
        return None
    figure, panels = grid_of_panels(len(parameters), theme, height=2.0)
    fit_looks = looks(results.fits, theme, results.reference.label)
    known = results.reference.moments
    for panel, parameter in zip(panels, parameters, strict=True):
        _draw(panel, columns.of(parameter), parameter.of(known), fit_looks, theme)
        panel.set_title(parameter.name, fontsize=10)
    with_reference = any(parameter.site in known for parameter in parameters)
    legend(figure, results.fits, fit_looks, theme, with_reference=with_reference)
    return figure


def _draw(
    panel: Axes,
    draws: list[np.ndarray],
    known: tuple[float, float] | None,
    fit_looks: list[Look],
    theme: Theme,
) -> None:
    low, high = visible_range(draws, TAIL)
    if known is not None:
        mean, sd = known
        panel.axvspan(mean - sd, mean + sd, color=theme.band, lw=0)
        panel.axvline(mean, color=theme.reference, lw=1.2)
        low = max(min(low, mean - 1.5 * sd), 0.0 if low >= 0.0 else -np.inf)
        high = max(high, mean + 1.5 * sd)
    for look, column in zip(fit_looks, draws, strict=True):
        if column.std() < SPIKE * (high - low):
            # Its density would squash all others, and a point mass has none.
            panel.axvline(column.mean(), color=look.colour, linestyle=look.line, lw=1.8)
            continue
        grid, curve = inference_data.density_curve(column)
        panel.plot(grid, curve, color=look.colour, linestyle=look.line, lw=1.8)
    panel.set_xlim(low, high)
    panel.set_ylim(bottom=0.0)
    panel.set_yticks([])
