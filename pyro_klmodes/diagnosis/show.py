"""A diagnosis on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pyro_klmodes.diagnosis.verdict import WorstShift
from pyro_klmodes.names import element_name
from pyro_klmodes.numbers import with_spread

if TYPE_CHECKING:
    from pyro_klmodes.diagnosis.result import Diagnosis

__all__ = ["COLOURS", "rendered"]

COLOURS = {
    "reliable": "green",
    "reweight": "green",
    "doubtful": "yellow",
    "misses mass": "yellow",
    "not converged": "yellow",
    "unknown": "yellow",
    "far off": "red",
}
MOST_ROWS = 12


def rendered(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """The verdict with its advice, then the numbers behind it, then what is missing."""
    word = diagnosis.verdict.word
    yield Text.assemble((word, f"bold {COLOURS[word]}"), f": {diagnosis.verdict.sentence}")
    for step in diagnosis.verdict.advice:
        yield Text(f"  → {step}")
    yield _numbers(diagnosis)
    if diagnosis.evidence:
        yield _evidence(diagnosis)
    if diagnosis.moments:
        yield _parameters(diagnosis)
    yield Text("what the lines mean: help(pyro_klmodes.Diagnosis)", style="dim")
    for note in diagnosis.notes:
        yield Text(f"note: {note}", style="dim")


def _numbers(diagnosis: Diagnosis) -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style="bold")
    table.add_column()
    for name, text in _lines(diagnosis):
        table.add_row(name, text)
    return table


def _lines(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    weights = diagnosis.weights
    if weights is not None and diagnosis.k_hat is not None:
        worst = int(diagnosis.k_hat.value.reshape(-1).nan_to_num(nan=math.inf).argmax())
        spread = float(diagnosis.k_hat.spread.reshape(-1)[worst])
        needed = float(diagnosis.k_hat.minimum_draws.reshape(-1)[worst])
        where = (
            ""
            if weights.cells == 1
            else (f", the largest of {weights.cells} cells; {weights.bad_cells} above the limit")
        )
        yield (
            "Pareto k-hat",
            (f"{weights.k_hat:.2f} ± {spread:.2f}, limit {weights.k_hat_limit:.2f}{where}"),
        )
        yield "draws it needs", f"{needed:.2g}" if needed < 1e9 else "more than can be had"
        yield "effective draws", f"{weights.effective_draws:.0f} of {weights.num_draws}"
    if diagnosis.combination is not None:
        yield "worst combinations", _combination(diagnosis.combination)
    if diagnosis.coverage is not None and diagnosis.opinion is not None:
        shares = ", ".join(f"{x:.2f}" for x in diagnosis.coverage.masses.tolist())
        true = ", ".join(f"{x:.2f}" for x in diagnosis.opinion.masses.tolist()[:MOST_ROWS])
        yield "mass at the modes", f"{shares}; found by search: {true}"
    if diagnosis.stein is not None:
        yield "Stein test of q = p", f"p-value {diagnosis.stein.p_value:.3f}"
    if diagnosis.chains is not None:
        yield "R-hat", f"at most {diagnosis.chains.worst_r_hat:.3f}"
        yield "effective draws", f"at least {diagnosis.chains.fewest_effective:.0f}"
        yield "divergences", str(diagnosis.chains.divergences)
    if diagnosis.settled is not None:
        yield "split R-hat of the loss", f"{diagnosis.settled:.2f}"


def _combination(worst: WorstShift) -> str:
    told = []
    if worst.mean > 0:
        told.append(f"mean of {worst.mean_at} off by {worst.mean:.2f} sd")
    if worst.log_ratio != 0:
        told.append(f"sd ratio {math.exp(worst.log_ratio):.2f} of {worst.sd_at}")
    return "; ".join(told) or "nothing beyond chance"


def _evidence(diagnosis: Diagnosis) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("log evidence")
    table.add_column("what it is")
    table.add_column("value ± s.e.", justify="right")
    grouped = [name for name in diagnosis.evidence if name.startswith("IWAE")]
    for name, bound in diagnosis.evidence.items():
        if name in grouped[:-1]:
            continue  # the last one is the tightest
        table.add_row(bound.name, bound.kind, with_spread(bound.value, bound.error))
    if diagnosis.trusted is not None:
        trusted = diagnosis.trusted
        origin = "exact" if trusted.error == 0 else "estimate"
        table.add_row("beyond the guide", origin, with_spread(trusted.value, trusted.error))
    return table


def _parameters(diagnosis: Diagnosis) -> Table:
    """The parameters whose moments are furthest from those of the weighted draws."""
    rows = sorted(_rows(diagnosis), key=lambda row: -max(abs(row[1]), abs(math.log(row[2]))))
    left_out = len(rows) - MOST_ROWS
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=f"and {left_out} more in .moments" if left_out > 0 else None,
    )
    table.add_column("guide against weighted draws")
    for heading in ("mean, in sd", "sd ratio", "k-hat by itself"):
        table.add_column(heading, justify="right")
    for name, shift, ratio, k_hat in rows[:MOST_ROWS]:
        table.add_row(escape(name), f"{shift:+.2f}", f"{ratio:.2f}", k_hat)
    return table


def _rows(diagnosis: Diagnosis) -> Iterator[tuple[str, float, float, str]]:
    for site, found in diagnosis.moments.items():
        marginal = diagnosis.marginal_k_hat.get(site)
        for index in np.ndindex(*found.shift.shape):
            k_hat = "–" if marginal is None else f"{float(marginal.value[index]):.2f}"
            yield (
                element_name(site, index),
                float(found.shift[index]),
                float(found.sd_ratio[index]),
                k_hat,
            )
