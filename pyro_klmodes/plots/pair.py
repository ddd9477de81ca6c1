"""Two parameters at a time, all fits over each other."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from pyro_klmodes import inference_data
from pyro_klmodes.entries import Results
from pyro_klmodes.plots.canvas import legend, new_figure, tidy
from pyro_klmodes.plots.draws import SPIKE, Columns, most_different, visible_range
from pyro_klmodes.plots.theme import LIGHT, Look, Theme, looks

__all__ = ["pair"]

MOST_PARAMETERS = 4
MASSES = (0.9, 0.5)  # inside of the outer and of the inner contour
GRID = 120
MOST_POINTS = 400
TAIL = 0.02  # the outer contour leaves out a tenth
# Scott's width is made for one normal and blurs two modes into each other.
NARROWER = 0.85


def pair(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Contours of every fit for the 2 to 4 parameters over which fits and reference differ most.

    The outer contour holds 90 % of a fit's draws, the inner one 50 %. On the diagonal are the
    densities; the draws of the reference fit, if it is one of the fits, are grey points.

    How to read it: contours that lie on each other agree, also about dependence; a round contour
    over a tilted or curved one ignores it.

    Returns:
        None if there are fewer than two parameters with a density.
    """
    columns = Columns(results)
    parameters = most_different(results, columns.continuous(results), MOST_PARAMETERS)
    size = len(parameters)
    if size < 2:
        return None
    draws = [columns.of(parameter) for parameter in parameters]
    ranges = [visible_range(held, TAIL) for held in draws]
    fit_looks = looks(results.fits, theme, results.reference.label)
    figure = new_figure(1.9 * size + 0.6, theme)
    panels = figure.subplots(size, size, squeeze=False)
    for row in range(size):
        for column in range(size):
            panel = panels[row, column]
            if column > row:
                panel.set_axis_off()
                continue
            tidy(panel, theme)
            panel.set_xlim(ranges[column])
            if column == row:
                _densities(panel, draws[row], ranges[row], fit_looks)
            else:
                panel.set_ylim(ranges[row])
                panel.grid(axis="y", color=theme.grid)
                for n, fit in enumerate(results.fits):
                    x, y = draws[column][n], draws[row][n]
                    if fit.label == results.reference.label:
                        _points(panel, x, y, theme)
                    _contours(panel, np.stack([x, y]), fit_looks[n])
            if row == size - 1:
                panel.set_xlabel(parameters[column].name)
            if column == 0 and row > 0:
                panel.set_ylabel(parameters[row].name)
    legend(figure, results.fits, fit_looks, theme)
    return figure


def _densities(
    panel: Axes, draws: list[np.ndarray], limits: tuple[float, float], fit_looks: list[Look]
) -> None:
    for look, column in zip(fit_looks, draws, strict=True):
        if column.std() < SPIKE * (limits[1] - limits[0]):
            panel.axvline(column.mean(), color=look.colour, linestyle=look.line, lw=1.6)
            continue
        grid, curve = inference_data.density_curve(column)
        panel.plot(grid, curve, color=look.colour, linestyle=look.line, lw=1.6)
    panel.set_ylim(bottom=0.0)
    panel.set_yticks([])


def _points(panel: Axes, x: np.ndarray, y: np.ndarray, theme: Theme) -> None:
    every = max(1, len(x) // MOST_POINTS)
    panel.scatter(x[::every], y[::every], s=5, color=theme.soft, alpha=0.35, linewidths=0)


def _contours(
    panel: Axes,
    draws: np.ndarray,  # (2, S)
    look: Look,
) -> None:
    """Lines of equal density around given shares of the draws."""
    draws = draws.astype(np.float64)
    centre, covariance = draws.mean(1, keepdims=True), np.cov(draws)
    scales = np.sqrt(np.diag(covariance))
    flat = scales < SPIKE * np.array([np.ptp(panel.get_xlim()), np.ptp(panel.get_ylim())])
    if flat.any() or abs(covariance[0, 1]) > (1 - 1e-6) * scales.prod():
        panel.plot(*draws[:, ::10], color=look.colour, linestyle=look.line, lw=1.6)
        return
    # In coordinates without dependence, where one width of the kernel is right for both.
    root = np.linalg.cholesky(covariance)
    free = np.linalg.solve(root, draws - centre)
    low, high = np.quantile(free, 0.001, axis=1) - 1.0, np.quantile(free, 0.999, axis=1) + 1.0
    edges = [np.linspace(low[axis], high[axis], GRID + 1) for axis in range(2)]
    counts, _ = np.histogramdd(free.T, bins=edges)
    width = NARROWER * draws.shape[1] ** (-1 / 6)  # Scott's, in units of the standard deviation
    cells = [width / (edge[1] - edge[0]) for edge in edges]
    smooth = gaussian_filter(counts, cells, mode="constant")
    falling = np.sort(smooth.ravel())[::-1]
    held = np.cumsum(falling) / falling.sum()
    levels = [falling[np.searchsorted(held, mass)] for mass in MASSES]
    if not 0.0 < levels[0] < levels[1] < falling[0]:
        return
    middles = np.meshgrid(*[(edge[1:] + edge[:-1]) / 2 for edge in edges], indexing="ij")
    x, y = (centre + root @ np.stack([part.ravel() for part in middles])).reshape(2, GRID, GRID)
    panel.contour(
        x, y, smooth, levels=levels, colors=look.colour, linestyles=look.line, linewidths=1.5
    )
