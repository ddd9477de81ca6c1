"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pyro_klmodes.diagnosis.show import COLOURS
from pyro_klmodes.entries import Failed, Fitted, Results
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.numbers import UNKNOWN, count, short_number, two_decimals, with_spread
from pyro_klmodes.tables.conclusion import conclude

__all__ = ["fit_table", "parameter_table", "rendered"]

MOST_ROWS = 40
LEGEND = (
    "k-hat: of the weights, or R-hat of chains; ESS: effective draws; log evidence: by weights; "
    "LOO: expected log predictive density of left-out data, larger is better, with ! where some "
    "data have a k too high for it."
)


def rendered(results: Results) -> Iterator[RenderableType]:
    """The conclusion, a line per fit, and the parameters."""
    found = conclude(results)
    yield Text(found.headline, style="bold")
    for point in found.points:
        yield Text(f"· {point}")
    for step in found.next_steps:
        yield Text(f"→ {step}")
    yield fit_table(results)
    yield Text(LEGEND, style="dim")
    for words, fits in results.recipes.items():
        yield Text(f"{_numbered(fits, results)}: {words}", style="dim")
    if any(True for _ in results.scalars()):
        yield parameter_table(results)


def fit_table(results: Results) -> Table:
    """One line per fit: can it be believed, the evidence, and what it predicts."""
    exact = results.reference.log_evidence
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("fit", min_width=12, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    evidence = "log evidence" if exact is None else f"log evidence\nexact {short_number(exact)}"
    # Two numbers above one another: side by side they do not fit on 80 columns.
    for heading in ("k-hat\nESS", evidence, "LOO", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, outcome in enumerate(results.outcomes, start=1):
        if isinstance(outcome, Failed):
            dashes = [UNKNOWN] * 4
            table.add_row(str(number), escape(outcome.label), "failed", *dashes, style="red")
            continue
        table.add_row(str(number), escape(outcome.label), *_cells(outcome))
    return table


def _numbered(fits: Sequence[Fitted], results: Results) -> str:
    """Fits by their numbers in the table."""
    labels = [outcome.label for outcome in results.outcomes]
    numbers = ", ".join(str(1 + labels.index(fit.label)) for fit in fits)
    return f"fit{'s' * (len(fits) > 1)} {numbers}"


def _cells(fit: Fitted) -> list[str]:
    evidence = evidence_of(fit.diagnosis)
    weights, chains = fit.diagnosis.weights, fit.diagnosis.chains
    quality = effective = None
    if weights is not None:
        quality, effective = weights.k_hat, weights.effective_draws
    elif chains is not None:
        quality, effective = chains.worst_r_hat, chains.fewest_effective
    colour = COLOURS[fit.verdict]
    # Without its standard error there is room for everything on eighty columns.
    loo = UNKNOWN if fit.loo is None else short_number(fit.loo.elpd)
    return [
        f"[{colour}]{fit.verdict}[/]",
        f"{'R-hat ' * (weights is None and chains is not None)}{two_decimals(quality)}\n"
        f"{count(effective)}",
        with_spread(evidence.estimate, evidence.error),
        f"{loo}{'!' if fit.bad_loo else ''}",
        UNKNOWN if fit.seconds is None else f"{fit.seconds:.0f} s",
    ]


def parameter_table(results: Results) -> Table:
    """Posterior mean and standard deviation of the first parameters under every fit."""
    numbers = {fit.label: n for n, fit in enumerate(results.outcomes, start=1)}
    parameters = list(results.scalars())
    left_out = len(parameters) - MOST_ROWS
    known = results.reference.moments
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=f"and {left_out} more in parameters()" if left_out > 0 else None,
    )
    table.add_column("mean ± sd")
    if known:
        table.add_column("reference", justify="right", no_wrap=True)
    for fit in results.fits:
        table.add_column(f"fit {numbers[fit.label]}", justify="right", no_wrap=True)
    for parameter in parameters[:MOST_ROWS]:
        reference = [with_spread(*(parameter.of(known) or (None, None)))] if known else []
        own = [with_spread(*(parameter.of(fit.moments) or (None, None))) for fit in results.fits]
        table.add_row(escape(parameter.name), *reference, *own)
    return table
