"""The figures of a comparison as PNG: the only file that imports matplotlib.

ArviZ computes intervals and densities (through `inference_data`), the drawing is done here on
figures of their own, so nothing touches the caller's pyplot state or backend.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pyro_klmodes import inference_data
from pyro_klmodes.comparison import Fitted
from pyro_klmodes.model_spec import Moments
from pyro_klmodes.tables import element_names

__all__ = ["density_plot", "forest_plot", "training_plot"]

# Okabe and Ito's colours, told apart by people with every common kind of colour vision; the light
# yellow is left out because it does not show on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")
BAND, REFERENCE = "#D9D9D9", "#4D4D4D"
DPI = 160
WIDE, NARROW = 0.94, 0.5
MOST_FOREST_ROWS = 40
MOST_DENSITY_PANELS = 12
DENSITY_COLUMNS = 3
# A curve this much narrower than its panel is drawn as a line.
SPIKE = 1e-3


@dataclass(frozen=True)
class _Look:
    """A fit's colour says its loss, its line and marker say its guide."""

    colour: str
    line: str
    marker: str


def forest_plot(fits: Sequence[Fitted], reference: Mapping[str, Moments]) -> bytes:
    """Mean, 50 % and 94 % highest-density interval of every parameter under every fit.

    One panel per site, because sites differ in scale. The reference is a vertical line at its mean
    with a band of one standard deviation to each side. Sites are drawn until 40 parameters are on
    the page.
    """
    sites = _sites_that_fit(fits[0].moments, MOST_FOREST_ROWS)
    heights = [counts * (0.32 + 0.14 * len(fits)) + 0.3 for counts in sites.values()]
    figure = Figure(figsize=(8.0, sum(heights) + 0.9), layout="constrained")
    panels = figure.subplots(len(sites), 1, squeeze=False, height_ratios=heights)[:, 0]
    looks = _looks(fits)
    wide = [inference_data.highest_density_intervals(fit.data, WIDE) for fit in fits]
    narrow = [inference_data.highest_density_intervals(fit.data, NARROW) for fit in fits]
    offsets = np.linspace(-0.3, 0.3, len(fits)) if len(fits) > 1 else np.zeros(1)
    for panel, site in zip(panels, sites, strict=True):
        names = element_names(site, fits[0].moments[site].mean.shape)[: sites[site]]
        for row in range(len(names)):
            if site in reference:
                mean, sd = (x.flat[row] for x in (reference[site].mean, reference[site].sd))
                panel.fill_betweenx(
                    [row - 0.45, row + 0.45], mean - sd, mean + sd, color=BAND, lw=0
                )
                panel.vlines(mean, row - 0.45, row + 0.45, color=REFERENCE, lw=1.2)
            for fit, look, offset, outer, inner in zip(
                fits, looks, offsets, wide, narrow, strict=True
            ):
                height = row + offset
                panel.hlines(
                    height,
                    *outer[site].reshape(-1, 2)[row],
                    color=look.colour,
                    linestyle=look.line,
                    lw=1.3,
                )
                panel.hlines(height, *inner[site].reshape(-1, 2)[row], color=look.colour, lw=3.2)
                panel.plot(
                    fit.moments[site].mean.flat[row],
                    height,
                    marker=look.marker,
                    color=look.colour,
                    markersize=5.5,
                    markeredgecolor="white",
                    markeredgewidth=0.8,
                )
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.45, -0.55)
        panel.grid(axis="x", color="#EEEEEE")
        panel.set_axisbelow(True)
        _tidy(panel)
    _legend(figure, fits, looks, with_reference=bool(set(sites) & set(reference)))
    return _png(figure)


def density_plot(fits: Sequence[Fitted], reference: Mapping[str, Moments]) -> bytes | None:
    """Posterior density of the first parameters under every fit, one panel per parameter.

    The reference is a vertical line at its mean with a band of one standard deviation to each
    side. Integer-valued and constant parameters have no density; if there are no others, there is
    no figure (None). At most 12 panels are drawn.
    """
    draws = [inference_data.site_draws(fit.data) for fit in fits]
    elements = list(_continuous_elements(draws))[:MOST_DENSITY_PANELS]
    if not elements:
        return None
    columns = min(DENSITY_COLUMNS, len(elements))
    rows = -(-len(elements) // columns)
    figure = Figure(figsize=(max(8.0, 3.0 * columns), 2.2 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    looks = _looks(fits)
    for panel, (site, element, name) in zip(panels, elements, strict=False):
        columns_of_draws = [
            values[site].reshape(len(values[site]), -1)[:, element] for values in draws
        ]
        low, high = _visible_range(columns_of_draws)
        if site in reference:
            mean, sd = (x.flat[element] for x in (reference[site].mean, reference[site].sd))
            panel.axvspan(mean - sd, mean + sd, color=BAND, lw=0)
            panel.axvline(mean, color=REFERENCE, lw=1.2)
            low, high = min(low, mean - 1.5 * sd), max(high, mean + 1.5 * sd)
        if all(column.min() >= 0.0 for column in columns_of_draws):
            low = max(low, 0.0)  # a positive parameter; the band around its mean need not be
        for look, column in zip(looks, columns_of_draws, strict=True):
            if column.std() < SPIKE * (high - low):
                # Its density would squash all others, and a point mass has none.
                panel.axvline(column.mean(), color=look.colour, linestyle=look.line, lw=1.6)
                continue
            grid, density = inference_data.density_curve(column)
            panel.plot(grid, density, color=look.colour, linestyle=look.line, lw=1.6)
        panel.set_xlim(low, high)
        panel.set_ylim(bottom=0.0)
        panel.set_yticks([])
        panel.set_title(name, fontsize=10)
        _tidy(panel)
    for panel in panels[len(elements) :]:
        panel.set_axis_off()
    shown = {site for site, _, _ in elements}
    _legend(figure, fits, looks, with_reference=bool(shown & set(reference)))
    return _png(figure)


def training_plot(fits: Sequence[Fitted]) -> bytes:
    """The loss of every fit during training, each loss in a panel of its own scale."""
    names = list(dict.fromkeys(fit.loss for fit in fits))
    columns = min(DENSITY_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(8.0, 2.4 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    looks = _looks(fits)
    for panel, name in zip(panels, names, strict=False):
        for fit, look in zip(fits, looks, strict=True):
            if fit.loss != name:
                continue
            smooth = _running_median(fit.training)
            panel.plot(smooth, color=look.colour, linestyle=look.line, lw=1.4)
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("step")
        _tidy(panel)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    _legend(figure, fits, looks, with_reference=False)
    return _png(figure)


def _looks(fits: Sequence[Fitted]) -> list[_Look]:
    losses = list(dict.fromkeys(fit.loss for fit in fits))
    guides = list(dict.fromkeys(fit.guide for fit in fits))
    return [
        _Look(
            COLOURS[losses.index(fit.loss) % len(COLOURS)],
            LINES[guides.index(fit.guide) % len(LINES)],
            MARKERS[guides.index(fit.guide) % len(MARKERS)],
        )
        for fit in fits
    ]


def _sites_that_fit(moments: Mapping[str, Moments], most: int) -> dict[str, int]:
    """How many elements of each site to draw, small sites first come, in the model's order."""
    counts: dict[str, int] = {}
    for site, values in moments.items():
        room = most - sum(counts.values())
        if room > 0 and values.mean.size:
            counts[site] = min(room, values.mean.size)
    return counts


def _continuous_elements(
    draws: Sequence[Mapping[str, np.ndarray]],
) -> Iterator[tuple[str, int, str]]:
    for site, values in draws[0].items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        for element, name in enumerate(element_names(site, values.shape[1:])):
            if any(np.ptp(fit[site].reshape(len(fit[site]), -1)[:, element]) > 0 for fit in draws):
                yield site, element, name


def _visible_range(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """From the lowest 0.5 % to the highest 99.5 % quantile: heavy tails do not squash the rest."""
    return (
        float(min(np.quantile(column, 0.005) for column in columns)),
        float(max(np.quantile(column, 0.995) for column in columns)),
    )


def _running_median(values: np.ndarray) -> np.ndarray:
    """A median over a fiftieth of the run: a single wild step does not set the scale."""
    width = max(1, len(values) // 50)
    windows = np.lib.stride_tricks.sliding_window_view(values, width)
    return np.median(windows, axis=-1)


def _tidy(panel: Axes) -> None:
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(labelsize=9)
    panel.tick_params(axis="y", length=0)


def _legend(
    figure: Figure, fits: Sequence[Fitted], looks: Sequence[_Look], *, with_reference: bool
) -> None:
    handles: list[Line2D | Patch] = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=5.5,
            label=fit.label,
        )
        for fit, look in zip(fits, looks, strict=True)
    ]
    if with_reference:
        handles.append(Patch(facecolor=BAND, edgecolor=REFERENCE, label="reference mean ± sd"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
