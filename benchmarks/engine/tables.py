"""The stored results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.engine.end_to_end import LENGTHS, planned
from benchmarks.engine.entrants import HAND, NUMPYRO, OTHERS, PYRO
from benchmarks.engine.grid import SMALL
from benchmarks.table import markdown

__all__ = ["report", "summary"]

INTERPRETERS = ("eager", "graph")


def report(results: dict[str, Any]) -> str:
    """What it was measured with, the summary, and all tables."""
    cells = results["cells"]
    names = _names(cells)
    sections = [
        f"{_versions(results)}.",
        summary(cells),
        "Microseconds per step:",
        _steps(cells, names),
        *_ratios(cells, names),
        "Seconds from nothing to the last step, compilation included: those to the first step plus "
        "so many steps. ELBO, mean field (the autoencoder has its own guide):",
        _planned(cells, names),
        *_whole(results["whole"]),
        *_failures(cells),
    ]
    return "\n\n".join(sections)


def summary(cells: dict[str, Any]) -> str:
    """For every compiled tier the claims that can be checked by a number."""
    lines = [
        line
        for tier in _names(cells)
        if tier not in (*OTHERS, *INTERPRETERS)
        for line in _claims(cells, tier)
    ]
    return "\n".join(lines) or "No compiled tier was measured."


def _claims(cells: dict[str, Any], tier: str) -> Iterator[str]:
    small = {k: v for k, v in cells.items() if k.split(" | ")[0] in SMALL}
    against_pyro = _medians(small, f"{PYRO} / {tier}")
    if against_pyro:
        yield (
            f"- `{tier}` against Pyro, small models: {min(against_pyro):.3g} to "
            f"{max(against_pyro):.3g} times faster, at least 40 times in "
            f"{_share(against_pyro, 40)} cells."
        )
    against_numpyro = _medians(cells, f"{NUMPYRO} / {tier}")
    if against_numpyro:
        yield (
            f"- `{tier}` against NumPyro: {min(against_numpyro):.2f} to "
            f"{max(against_numpyro):.2f} times as fast, at least as fast in "
            f"{_share(against_numpyro, 1)} cells."
        )
    against_hand = [1 / x for x in _medians(cells, f"{HAND} / {tier}")]
    if against_hand:
        within = sum(x <= 1.3 for x in against_hand)
        yield (
            f"- `{tier}` takes {min(against_hand):.2f} to {max(against_hand):.2f} times as long as "
            f"torch by hand, at most 1.3 times in {within} of {len(against_hand)} cells."
        )


def _medians(cells: dict[str, Any], ratio: str) -> list[float]:
    return [cell["ratios"][ratio][0] for cell in cells.values() if ratio in cell["ratios"]]


def _share(ratios: list[float], least: float) -> str:
    return f"{sum(x >= least for x in ratios)} of {len(ratios)}"


def _names(cells: dict[str, Any]) -> list[str]:
    """Contestants in the order of their processes, not of files."""
    seen = dict.fromkeys(name for cell in cells.values() for name in cell["step"])
    return [name for name in OTHERS if name in seen] + [n for n in seen if n not in OTHERS]


def _steps(cells: dict[str, Any], names: list[str]) -> str:
    rows = (
        [*label.split(" | "), *(_number(cell["step"].get(name)) for name in names)]
        for label, cell in cells.items()
    )
    return markdown(["model", "guide", "objective", "particles", *names], rows)


def _ratios(cells: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Against each of our tiers, or between the others where there is none of ours."""
    tiers = [name for name in names if name not in OTHERS] or [HAND]
    for tier in tiers:
        others = [name for name in names if name in OTHERS and name != tier]
        yield f"How many times as long as `{tier}` the others take, median (quartiles):"
        rows = (
            [
                *label.split(" | "),
                *(_spread(cell["ratios"].get(f"{other} / {tier}")) for other in others),
            ]
            for label, cell in cells.items()
        )
        yield markdown(["model", "guide", "objective", "particles", *others], rows)


def _planned(cells: dict[str, Any], names: list[str]) -> str:
    rows = (
        [
            *row.label.split(" | ")[::3],
            f"{row.steps:,}",
            *(_number(row.seconds.get(n)) for n in names),
        ]
        for row in planned(cells, LENGTHS)
    )
    return markdown(["model", "particles", "steps", *names], rows)


def _whole(whole: dict[str, Any]) -> Iterable[str]:
    if not whole:
        return ()
    rows = [
        [
            *label.split(" | ")[::3],
            name,
            f"{run['steps']:,}",
            _number(run["seconds"]),
            _number(run["planned"]),
        ]
        for label, runs in whole.items()
        for name, run in runs.items()
    ]
    head = ["model", "particles", "contestant", "steps", "measured", "as reckoned above"]
    return ("Runs that were measured whole, in seconds:", markdown(head, rows))


def _failures(cells: dict[str, Any]) -> Iterable[str]:
    rows = [
        f"- {label.replace(' | ', ', ')}: {name}: {reason}"
        for label, cell in cells.items()
        for name, reason in cell["failed"].items()
    ]
    return ("Not measured:", "\n".join(rows)) if rows else ()


def _versions(results: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    return f"{packages}; {results['processor']}, one thread, float32"


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def _spread(ratio: list[float] | None) -> str:
    if ratio is None:
        return "–"
    median, low, high = map(_number, ratio)
    return f"{median} ({low}–{high})"
