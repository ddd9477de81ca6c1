"""The draws of single parameters, and which parameters are worth a look."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pyro_klmodes import inference_data
from pyro_klmodes.entries import Results
from pyro_klmodes.entries.distance import distance
from pyro_klmodes.entries.results import Parameter

__all__ = ["SPIKE", "Columns", "most_different", "visible_range"]

# A spread this much smaller than the panel is a point.
SPIKE = 1e-3


class Columns:
    """The draws of single parameters under every fit."""

    def __init__(self, results: Results) -> None:
        self._draws = [inference_data.site_draws(fit.data) for fit in results.fits]

    def of(self, parameter: Parameter) -> list[np.ndarray]:  # one of shape (S,) per fit
        """The draws of one parameter."""
        values = [draws[parameter.site] for draws in self._draws]
        return [value.reshape(len(value), -1)[:, parameter.element] for value in values]

    def continuous(self, results: Results, most: float = math.inf) -> list[Parameter]:
        """The first parameters that are real numbers and vary under at least one fit."""
        found: list[Parameter] = []
        for parameter in results.scalars():
            if len(found) == most:
                break
            draws = self.of(parameter)
            real = all(np.issubdtype(column.dtype, np.floating) for column in draws)
            if real and any(np.ptp(column) > 0 for column in draws):
                found.append(parameter)
        return found


def most_different(results: Results, candidates: list[Parameter], count: int) -> list[Parameter]:
    """Those over which fits and reference disagree most, in the order of the model."""
    ranked = sorted(candidates, key=lambda p: -_disagreement(results, p))[:count]
    return [parameter for parameter in candidates if parameter in ranked]


def visible_range(draws: Sequence[np.ndarray], tail: float) -> tuple[float, float]:
    """All draws but this share at either end: heavy tails do not squash the rest.

    A positive parameter starts at zero at the lowest.
    """
    low = float(min(np.quantile(column, tail) for column in draws))
    high = float(max(np.quantile(column, 1 - tail) for column in draws))
    room = 0.08 * (high - low) or 0.5
    positive = all(column.min() >= 0.0 for column in draws)
    return max(low - room, 0.0) if positive else low - room, high + room


def _disagreement(results: Results, parameter: Parameter) -> float:
    """The largest distance of means in standard deviations, or of logarithms of the latter."""
    apart = [distance(fit, parameter, results) for fit in results.fits]
    known = [d for d in apart if d is not None and d.sd_ratio > 0]
    if known:
        return max(max(abs(d.z_shift), abs(math.log(d.sd_ratio))) for d in known)
    pairs = [pair for fit in results.fits if (pair := parameter.of(fit.moments)) and pair[1] > 0]
    if not pairs:
        return 0.0
    means, sds = zip(*pairs, strict=True)
    return max((max(means) - min(means)) / min(sds), math.log(max(sds) / min(sds)))
