"""The loss of every fit during training."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pyro_klmodes.entries import Results
from pyro_klmodes.plots.canvas import grid_of_panels, legend
from pyro_klmodes.plots.theme import LIGHT, Theme, looks

__all__ = ["running_median", "training"]


def training(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """Running median of the loss at every step, each kind of loss in a panel of its own scale.

    How to read it: a curve that is not level at the right edge needs more steps. A forward loss may
    rise towards its level, because its weights come from the guide that is fitted.

    Returns:
        None if no fit kept its losses.
    """
    kept = [fit for fit in results.fits if np.isfinite(fit.training).any()]
    if not kept:
        return None
    by_label = dict(
        zip(
            (fit.label for fit in results.fits),
            looks(results.fits, theme, results.reference.label),
            strict=True,
        )
    )
    names = list(dict.fromkeys(fit.loss for fit in kept))
    figure, panels = grid_of_panels(len(names), theme, height=2.3)
    for panel, name in zip(panels, names, strict=True):
        for fit in kept:
            if fit.loss == name:
                look = by_label[fit.label]
                steps, smooth = running_median(fit.training)
                panel.plot(steps, smooth, color=look.colour, linestyle=look.line, lw=1.6)
        panel.set_title(name or "loss", fontsize=10)
        panel.set_xlabel("step")
    legend(figure, kept, [by_label[fit.label] for fit in kept], theme)
    return figure


def running_median(
    values: np.ndarray,  # (steps,), NaN where a step was skipped
) -> tuple[np.ndarray, np.ndarray]:
    """A median over a fiftieth of the run: a single wild step does not set the scale."""
    steps = np.flatnonzero(np.isfinite(values))
    width = max(1, len(steps) // 50)
    windows = np.lib.stride_tricks.sliding_window_view(values[steps], width)
    return steps[width // 2 :][: len(windows)], np.median(windows, axis=-1)
