"""The log evidence according to every fit: from its lower bound to its estimate."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyro_klmodes.diagnosis import Diagnosis
from pyro_klmodes.entries import Results
from pyro_klmodes.entries.evidence import EvidenceOf, evidence_of
from pyro_klmodes.plots.canvas import legend, new_figure, tidy
from pyro_klmodes.plots.theme import LIGHT, Look, Theme, looks

__all__ = ["evidence"]

# A bound further below the best estimate than this many times the median gap is cut off.
MOST_GAPS, LEAST_RANGE = 5.0, 1.0


def evidence(results: Results, *, theme: Theme = LIGHT) -> Figure | None:
    """One line per fit from the ELBO to the estimate by weights, with its standard error twice.

    The vertical line is the exact value; where it is not known, the dashed one is the best estimate
    from draws that are not the guides' own. A bound that is too far off is cut, with its value at
    the edge.

    How to read it: a short line that ends at the vertical one is a good fit; an estimate to the
    left of it misses mass.

    Returns:
        None if no fit has an estimate of the evidence.
    """
    told = [fit for fit in results.fits if _usable(evidence_of(fit.diagnosis))]
    if not told:
        return None
    all_looks = looks(results.fits, theme, results.reference.label)
    fit_looks = [all_looks[results.fits.index(fit)] for fit in told]
    numbers = [evidence_of(fit.diagnosis) for fit in told]
    exact, beyond = results.reference.log_evidence, _beyond([fit.diagnosis for fit in told])
    standard = exact if exact is not None else beyond
    figure = new_figure(1.3 + 0.34 * len(told), theme)
    panel = figure.subplots()
    tidy(panel, theme)
    low, high = _limits(numbers, standard)
    others: list[Line2D] = []
    if standard is not None:
        line = "-" if exact is not None else "--"
        panel.axvline(standard, color=theme.reference, linestyle=line, lw=1.4)
        name = "exact" if exact is not None else "best estimate beyond the guides"
        others.append(Line2D([], [], color=theme.reference, linestyle=line, lw=1.4, label=name))
    for row, (numbers_of, look) in enumerate(zip(numbers, fit_looks, strict=True)):
        _draw(panel, row, numbers_of, look, theme, low)
    panel.set_xlim(low, high)
    panel.set_yticks(range(len(told)), [fit.label for fit in told])
    panel.set_ylim(len(told) - 0.4, -0.6)
    panel.set_xlabel("log evidence; line: from the ELBO, marker: estimate ± 2 standard errors")
    if others:
        legend(figure, [], [], theme, others=others)
    return figure


def _draw(panel: Axes, row: int, found: EvidenceOf, look: Look, theme: Theme, low: float) -> None:
    if found.estimate is None or found.error is None:
        return
    start = found.elbo if found.elbo is not None else found.lower
    if found.estimate < low:
        _at_the_edge(panel, row, found.estimate, theme, low)
        return
    if start is not None:
        panel.hlines(row, max(start, low), found.estimate, color=look.colour, lw=4, alpha=0.45)
        if start >= low:
            panel.plot(start, row, marker="|", color=look.colour, markersize=12, mew=2)
        else:
            _at_the_edge(panel, row, start, theme, low)
    if found.upper is not None:
        panel.hlines(row, found.estimate, found.upper, color=look.colour, lw=4, alpha=0.45)
        panel.plot(found.upper, row, marker="|", color=look.colour, markersize=12, mew=2)
    panel.errorbar(
        found.estimate,
        row,
        xerr=2 * found.error,
        color=look.colour,
        marker=look.marker,
        markersize=7,
        markeredgecolor=theme.page,
        elinewidth=1.6,
        capsize=3,
    )


def _at_the_edge(panel: Axes, row: int, value: float, theme: Theme, low: float) -> None:
    text = f" ◂ {value:.4g}".replace("-", "−")
    panel.text(low, row - 0.12, text, va="bottom", fontsize=8, color=theme.ink)


def _limits(numbers: list[EvidenceOf], standard: float | None) -> tuple[float, float]:
    estimates = [n.estimate for n in numbers if n.estimate is not None]
    top = max([*estimates, *([] if standard is None else [standard])])
    bottoms = [n.elbo if n.elbo is not None else n.estimate for n in numbers]
    gaps = sorted(top - bottom for bottom in bottoms if bottom is not None)
    typical = gaps[(len(gaps) - 1) // 2]
    low = max(top - max(MOST_GAPS * typical, LEAST_RANGE), top - gaps[-1])
    low = min([low, *(e for e in estimates if top - e < 10 * MOST_GAPS * typical + LEAST_RANGE)])
    ends = [n.estimate + 2 * n.error for n in numbers if n.estimate is not None and n.error]
    ends += [n.upper for n in numbers if n.upper is not None]
    high = max([top, *(end for end in ends if end < top + 2 * (top - low) + LEAST_RANGE)])
    room = 0.06 * (high - low) or 0.1
    return low - room, high + room


def _beyond(diagnoses: list[Diagnosis]) -> float | None:
    """The trusted evidence with the highest lower end."""
    found = [d.trusted for d in diagnoses if d.trusted is not None]
    best = max(found, key=lambda trusted: trusted.value - 4 * trusted.error, default=None)
    return None if best is None else best.value


def _usable(found: EvidenceOf) -> bool:
    return found.estimate is not None and math.isfinite(found.estimate)
