"""Where the weights are heavy: k-hat of every datum, or of every latent site."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_klmodes.entries import Fitted, Results
from pyro_klmodes.plots.canvas import legend, new_figure, tidy
from pyro_klmodes.plots.theme import LIGHT, Look, Theme, looks

__all__ = ["khat", "per_datum"]

LARGEST = 1.5  # beyond, all k-hat say the same
SMALLEST = -0.5
MOST_SITES = 30


def per_datum(results: Results) -> bool:
    """Whether a fit has weights per cell of local plates."""
    return any(_cells(fit).size > 1 for fit in results.fits)


def khat(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Pareto k-hat of every cell of the local plates; without such plates, of every latent site.

    Values below -0.5 are drawn at -0.5, those above 1.5 at 1.5.

    How to read it: points beyond the line of the limit are data, or sites, for which the guide is
    too far from the posterior for its draws to be reweighted.

    Returns:
        None if no fit has weights, as is so for Markov chains alone.
    """
    weighed = [fit for fit in results.fits if fit.diagnosis.weights is not None]
    if not weighed:
        return None
    all_looks = looks(results.fits, theme, results.reference.label)
    fit_looks = [all_looks[results.fits.index(fit)] for fit in weighed]
    local = per_datum(results)
    sites = {} if local else _sites(weighed)
    if not local and not sites:
        return None
    figure = new_figure(
        3.4 if local else 0.9 + 0.3 * len(sites) * (0.6 + 0.2 * len(weighed)), theme
    )
    panel = figure.subplots()
    tidy(panel, theme)
    if local:
        _draw_cells(panel, weighed, fit_looks, theme)
    else:
        _draw_sites(panel, weighed, fit_looks, sites, theme)
    legend(figure, weighed, fit_looks, theme)
    return figure


def _draw_cells(panel: Axes, fits: list[Fitted], fit_looks: list[Look], theme: Theme) -> None:
    count = max(_cells(fit).size for fit in fits)
    for fit, look in zip(fits, fit_looks, strict=True):
        cells = _cells(fit)
        if cells.size == 1:  # one weight for all of the data
            panel.axhline(cells[0], color=look.colour, linestyle=look.line, lw=1.6)
            continue
        panel.scatter(
            np.arange(cells.size),
            cells,
            s=26 if count <= 200 else 8,
            marker=look.marker,
            color=look.colour,
            alpha=0.9 if count <= 200 else 0.6,
            linewidths=0,
            zorder=3,
        )
    limit = _limit(fits)
    panel.axhline(limit, color=theme.reference, lw=1.2)
    panel.set_xlim(-0.02 * count - 0.5, 1.02 * count - 0.5)
    low, high = panel.get_ylim()
    panel.set_ylim(low, max(high, limit + 0.1))
    panel.text(
        1.0,
        limit,
        f"limit {limit:.2f} ",
        transform=panel.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=9,
        color=theme.ink,
    )
    panel.set_xlabel("cell of the local plates")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel("k-hat")
    panel.grid(axis="y", color=theme.grid)


def _draw_sites(
    panel: Axes,
    fits: list[Fitted],
    fit_looks: list[Look],
    sites: dict[str, None],
    theme: Theme,
) -> None:
    names = list(sites)
    offsets = np.linspace(-0.28, 0.28, len(fits)) if len(fits) > 1 else np.zeros(1)
    for fit, look, offset in zip(fits, fit_looks, offsets, strict=True):
        for row, site in enumerate(names):
            marginal = fit.diagnosis.marginal_k_hat.get(site)
            if marginal is None:
                continue
            values = _clipped(marginal.value)
            panel.hlines(row + offset, 0.0, values.max(), color=look.colour, lw=2.4, alpha=0.6)
            panel.scatter(
                values,
                np.full(values.size, row + offset),
                s=34,
                marker=look.marker,
                color=look.colour,
                edgecolors=theme.page,
                linewidths=0.8,
                zorder=3,
            )
    limit = _limit(fits)
    panel.axvline(limit, color=theme.reference, lw=1.2)
    panel.axvline(0.0, color=theme.soft, lw=0.8)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.75)
    low, high = panel.get_xlim()
    panel.set_xlim(low, max(high, limit + 0.15))
    panel.text(limit, -0.72, f" limit {limit:.2f}", va="top", fontsize=9, color=theme.ink)
    panel.set_xlabel("k-hat of the site by itself")


def _sites(fits: list[Fitted]) -> dict[str, None]:
    """Sites with a k-hat of their own, the worst ones if there are many."""
    worst: dict[str, float] = {}
    for fit in fits:
        for site, marginal in fit.diagnosis.marginal_k_hat.items():
            worst[site] = max(worst.get(site, SMALLEST), float(_clipped(marginal.value).max()))
    kept = sorted(worst, key=lambda site: -worst[site])[:MOST_SITES]
    return dict.fromkeys(site for site in worst if site in kept)


def _cells(fit: Fitted) -> np.ndarray:  # (C,)
    found = fit.diagnosis.k_hat
    return np.empty(0) if found is None else _clipped(found.value)


def _clipped(value: object) -> np.ndarray:  # (C,)
    array = np.asarray(value, dtype=np.float64).ravel()
    return np.clip(np.nan_to_num(array, nan=LARGEST, posinf=LARGEST), SMALLEST, LARGEST)


def _limit(fits: list[Fitted]) -> float:
    return min(fit.diagnosis.weights.k_hat_limit for fit in fits if fit.diagnosis.weights)
