"""The forest plot: means and intervals of every parameter under every fit."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_klmodes import inference_data
from pyro_klmodes.entries import Results
from pyro_klmodes.entries.results import Parameter
from pyro_klmodes.plots.canvas import legend, new_figure, tidy
from pyro_klmodes.plots.draws import Columns
from pyro_klmodes.plots.theme import LIGHT, Look, Theme, looks

__all__ = ["forest"]

WIDE, NARROW = 0.94, 0.5
MOST_ROWS = 40


def forest(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Mean, 50 % and 94 % highest-density interval of the first 40 parameters under every fit.

    One panel per site, because sites differ in scale. The reference is a vertical line at its mean
    with a band of one standard deviation to each side.

    How to read it: a line much shorter than the band, or than its neighbours, is overconfident; a
    dot off the line is biased.

    Returns:
        None if the fits have no parameter in common.
    """
    rows: dict[str, list[Parameter]] = {}
    for parameter in list(results.scalars())[:MOST_ROWS]:
        rows.setdefault(parameter.site, []).append(parameter)
    if not rows:
        return None
    each = 0.3 + 0.15 * len(results.fits)
    heights = [len(parameters) * each + 0.3 for parameters in rows.values()]
    figure = new_figure(sum(heights) + 0.7, theme)
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    fit_looks = looks(results.fits, theme, results.reference.label)
    ranges = _intervals(results, [p for parameters in rows.values() for p in parameters])
    for panel, parameters in zip(panels, rows.values(), strict=True):
        for row, parameter in enumerate(parameters):
            _reference(panel, row, parameter.of(results.reference.moments), theme)
            _row(panel, row, parameter, results, fit_looks, ranges, theme)
        tidy(panel, theme)
        panel.set_yticks(range(len(parameters)), [parameter.name for parameter in parameters])
        panel.set_ylim(len(parameters) - 0.45, -0.55)
    with_reference = any(site in results.reference.moments for site in rows)
    legend(figure, results.fits, fit_looks, theme, with_reference=with_reference)
    return figure


def _intervals(results: Results, parameters: list[Parameter]) -> list[dict[str, np.ndarray]]:
    """For every fit the ends of the wide and of the narrow interval of each parameter, (2, 2)."""
    columns = Columns(results)
    held = {parameter.name: columns.of(parameter) for parameter in parameters}
    found = []
    for n in range(len(results.fits)):
        data = inference_data.from_chains({name: draws[n][None] for name, draws in held.items()})
        wide, narrow = (
            inference_data.highest_density_intervals(data, share) for share in (WIDE, NARROW)
        )
        found.append({name: np.stack([wide[name], narrow[name]]) for name in held})
    return found


def _reference(panel: Axes, row: int, known: tuple[float, float] | None, theme: Theme) -> None:
    if known is None:
        return
    mean, sd = known
    edges = [row - 0.45, row + 0.45]
    panel.fill_betweenx(edges, mean - sd, mean + sd, color=theme.band, lw=0)
    panel.vlines(mean, *edges, color=theme.reference, lw=1.2)


def _row(
    panel: Axes,
    row: int,
    parameter: Parameter,
    results: Results,
    fit_looks: list[Look],
    ranges: list[dict[str, np.ndarray]],
    theme: Theme,
) -> None:
    fits = results.fits
    offsets = np.linspace(-0.3, 0.3, len(fits)) if len(fits) > 1 else np.zeros(1)
    for fit, look, offset, held in zip(fits, fit_looks, offsets, ranges, strict=True):
        wide, narrow = held[parameter.name]
        height, mean = row + offset, float(fit.moments[parameter.site].mean.flat[parameter.element])
        panel.hlines(height, *wide, color=look.colour, linestyle=look.line, lw=1.5)
        panel.hlines(height, *narrow, color=look.colour, lw=3.6)
        panel.plot(
            mean,
            height,
            marker=look.marker,
            color=look.colour,
            markersize=7.5,
            markeredgecolor=theme.page,
            markeredgewidth=1.1,
        )
