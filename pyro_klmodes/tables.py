"""The numbers of a comparison: ``table.csv``, ``results.json`` and the table on the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pyro_klmodes.comparison import Failed, Fitted, Outcome
from pyro_klmodes.model_spec import Moments, Target
from pyro_klmodes.reliability import verdict

__all__ = [
    "ParameterRow",
    "Settings",
    "element_names",
    "file_name",
    "fit_table",
    "parameter_rows",
    "parameter_table",
    "short_number",
    "with_spread",
    "write_tables",
]

MOST_TERMINAL_ROWS = 40
CSV_COLUMNS = (
    "guide",
    "loss",
    "status",
    "parameter",
    "mean",
    "sd",
    "reference_mean",
    "reference_sd",
    "log_evidence",
    "log_evidence_error",
    "exact_log_evidence",
    "k_hat",
    "effective_draws",
    "seconds",
    "message",
)


@dataclass(frozen=True)
class Settings:
    """How a comparison was run, for whoever wants to run it again."""

    command: str
    steps: int
    seed: int
    num_draws: int


class Pair(NamedTuple):
    """Mean and standard deviation of one scalar parameter."""

    mean: float
    sd: float


class ParameterRow(NamedTuple):
    """One scalar parameter: its reference, if there is one, and what every fit says."""

    name: str
    reference: Pair | None
    fits: list[Pair]


def write_tables(
    folder: Path, target: Target, outcomes: Sequence[Outcome], settings: Settings
) -> None:
    """Write ``table.csv`` (a row per fit and parameter) and ``results.json`` (all of it)."""
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=CSV_COLUMNS, restval="")
        writer.writeheader()
        for outcome in outcomes:
            writer.writerows(_csv_rows(target, outcome))
    results = {
        "model": target.name,
        "source": target.source,
        "reference": {site: _as_lists(moments) for site, moments in target.reference.items()},
        "reference_from": target.how,
        "exact_log_evidence": target.log_evidence,
        "settings": asdict(settings),
        "fits": [_as_json(target, outcome) for outcome in outcomes],
    }
    text = json.dumps(_finite(results), indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def fit_table(target: Target, outcomes: Sequence[Outcome]) -> Table:
    """One line per fit for the terminal: can it be believed, and the evidence."""
    exact = "" if target.log_evidence is None else f"\nexact {short_number(target.log_evidence)}"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("fit", justify="right")
    # Guide and loss above one another: side by side they do not fit on 80 columns.
    table.add_column("guide\nloss", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for heading in ("k-hat", "ESS", f"log evidence{exact}", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, outcome in enumerate(outcomes, start=1):
        pair = (str(number), f"{outcome.guide}\n{outcome.loss}")
        if isinstance(outcome, Failed):
            table.add_row(*pair, "failed", "–", "–", "–", "–", style="red")
            continue
        weights = outcome.weights
        word, _ = verdict(weights, target.log_evidence)
        table.add_row(
            *pair,
            f"[{'green' if word == 'reliable' else 'yellow'}]{word}",
            short_number(weights.k_hat),
            f"{weights.effective_draws:.0f}",
            with_spread(weights.log_evidence, weights.log_evidence_error),
            f"{outcome.seconds:.1f}",
        )
    return table


def parameter_table(target: Target, outcomes: Sequence[Outcome]) -> Table:
    """Posterior mean and standard deviation of the first parameters under every fit."""
    fits = {n: fit for n, fit in enumerate(outcomes, start=1) if isinstance(fit, Fitted)}
    rows = list(parameter_rows(list(fits.values()), target.reference))
    left_out = len(rows) - MOST_TERMINAL_ROWS
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=f"and {left_out} more in table.csv" if left_out > 0 else None,
    )
    table.add_column("mean ± sd")
    if target.reference:
        table.add_column("reference", justify="right", no_wrap=True)
    for number in fits:
        table.add_column(f"fit {number}", justify="right", no_wrap=True)
    for row in rows[:MOST_TERMINAL_ROWS]:
        known = [with_spread(*(row.reference or (None, None)))] if target.reference else []
        table.add_row(escape(row.name), *known, *(with_spread(*pair) for pair in row.fits))
    return table


def parameter_rows(
    fits: Sequence[Fitted], reference: Mapping[str, Moments]
) -> Iterator[ParameterRow]:
    """One row per scalar parameter, in the order of the model."""
    for site, first in (fits[0].moments if fits else {}).items():
        for element, name in enumerate(element_names(site, first.mean.shape)):
            known = _pair(reference[site], element) if site in reference else None
            yield ParameterRow(name, known, [_pair(fit.moments[site], element) for fit in fits])


def element_names(site: str, shape: tuple[int, ...]) -> list[str]:
    """Names of a site's elements in row-major order.

    Example:
        >>> element_names("mu", ()), element_names("theta", (2,))
        (['mu'], ['theta[0]', 'theta[1]'])
    """
    if not shape:
        return [site]
    return [f"{site}[{','.join(map(str, index))}]" for index in np.ndindex(shape)]


def file_name(outcome: Outcome) -> str:
    """The name of a fit's NetCDF file."""
    return f"{outcome.guide}-{outcome.loss}.nc"


def short_number(value: float | None) -> str:
    """Two decimals with a true minus sign, a dash for what is unknown.

    Example:
        >>> short_number(-1.234), short_number(None), short_number(float("inf"))
        ('−1.23', '–', '∞')
    """
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    # Three digits for numbers that two decimals would flatten or drown in digits.
    digits = ".2f" if 0.1 <= abs(value) < 1e4 or value == 0 else ".3g"
    return format(value, digits).replace("-", "−")


def with_spread(value: float | None, spread: float | None) -> str:
    """A number with its standard deviation or error, to two significant digits of the latter.

    Example:
        >>> with_spread(-31.3478, 0.0436), with_spread(6.21, 12.57), with_spread(None, None)
        ('−31.348 ± 0.044', '6 ± 13', '–')
    """
    if value is None or spread is None:
        return "–"
    if spread == 0 or not math.isfinite(spread) or not math.isfinite(value):
        return f"{short_number(value)} ± {short_number(spread)}"
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return f"{value:.{decimals}f} ± {spread:.{decimals}f}".replace("-", "−")


def _csv_rows(target: Target, outcome: Outcome) -> Iterator[dict[str, Any]]:
    pair = {"guide": outcome.guide, "loss": outcome.loss}
    if isinstance(outcome, Failed):
        yield {**pair, "status": "failed", "message": outcome.message}
        return
    common = {
        **pair,
        "status": verdict(outcome.weights, target.log_evidence)[0],
        "log_evidence": outcome.weights.log_evidence,
        "log_evidence_error": outcome.weights.log_evidence_error,
        "exact_log_evidence": target.log_evidence,
        "k_hat": outcome.weights.k_hat,
        "effective_draws": outcome.weights.effective_draws,
        "seconds": outcome.seconds,
        "message": " ".join(outcome.notes),
    }
    for name, reference, (moments,) in parameter_rows([outcome], target.reference):
        row = {**common, "parameter": name, "mean": moments.mean, "sd": moments.sd}
        if reference is not None:
            row |= {"reference_mean": reference.mean, "reference_sd": reference.sd}
        yield row


def _pair(moments: Moments, element: int) -> Pair:
    return Pair(float(moments.mean.flat[element]), float(moments.sd.flat[element]))


def _as_lists(moments: Moments) -> dict[str, Any]:
    return {"mean": moments.mean.tolist(), "sd": moments.sd.tolist()}


def _as_json(target: Target, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"status": "failed", **asdict(outcome)}
    word, sentence = verdict(outcome.weights, target.log_evidence)
    return {
        "guide": outcome.guide,
        "loss": outcome.loss,
        "status": word,
        "meaning": sentence,
        "file": file_name(outcome),
        "seconds": outcome.seconds,
        **asdict(outcome.weights),
        "posterior": {site: _as_lists(moments) for site, moments in outcome.moments.items()},
        "notes": list(outcome.notes),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
