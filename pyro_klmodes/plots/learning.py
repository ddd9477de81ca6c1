"""How a training went: the loss of every step, the bound on held-out data after every epoch."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pyro_klmodes.plots.canvas import grid_of_panels
from pyro_klmodes.plots.theme import LIGHT, Theme
from pyro_klmodes.plots.training import running_median

__all__ = ["learning"]


def learning(
    losses: np.ndarray,  # (steps,), NaN where a step was skipped
    steps: np.ndarray,  # (looks,)
    bounds: np.ndarray,  # (looks,)
    errors: np.ndarray,  # (looks,), standard errors
    *,
    exact: float | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Running median of the loss, and the bound with a band of one standard error over data.

    How to read it: the loss is that of whole batches, and losses of one name only can be compared.
    The bound means the same for every loss. Where it falls again, the training has gone on for too
    long. The dashed line is the exact value at the end, if there is one.
    """
    figure, (left, right) = grid_of_panels(2, theme, height=2.6, most_columns=2)
    if np.isfinite(losses).any():
        at, smooth = running_median(losses)
        left.plot(at + 1, smooth, color=theme.palette[0], lw=1.6)
    left.set_title("loss", fontsize=10)
    right.plot(steps, bounds, color=theme.palette[1], lw=1.6, marker="o", markersize=2.5)
    right.fill_between(
        steps, bounds - errors, bounds + errors, color=theme.palette[1], alpha=0.2, lw=0
    )
    if exact is not None:
        right.axhline(exact, color=theme.reference, lw=1.2, linestyle="--")
    right.set_title("held-out bound per datum", fontsize=10)
    for panel in (left, right):
        panel.set_xlabel("step")
    return figure
