"""The comparison in words: which fits can be believed, what the others miss, what to try next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyro_klmodes.entries import Fitted, Results
from pyro_klmodes.entries.distance import worst_distance
from pyro_klmodes.entries.entry import USABLE
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.entries.shortfall import shortfall
from pyro_klmodes.numbers import short_number, two_decimals

__all__ = ["Conclusion", "conclude"]

# Beyond these, a fit that was called reliable is contradicted by the reference.
FAR_MEAN, FAR_LOG_RATIO = 0.5, math.log(1.5)
MOST_STEPS = 3


@dataclass(frozen=True)
class Conclusion:
    """What a comparison comes to.

    Attributes:
        headline: One sentence: which fits can be believed.
        points: A sentence about each of the others, and about the reference.
        next_steps: What to do now, most promising first.
    """

    headline: str
    points: tuple[str, ...]
    next_steps: tuple[str, ...]


def conclude(results: Results) -> Conclusion:
    """Put the verdicts of all fits together.

    A fit that is called reliable although its moments are off the reference by more than half a
    standard deviation, or by a factor of 1.5 in spread, is named as contradicted, not as reliable.
    So is one whose evidence falls short of that of another fit, see `shortfall`.
    """
    short = {fit.label for fit in results.fits if shortfall(fit, results) is not None}
    fits = [fit for fit in results.fits if fit.label not in short]
    contradicted = [fit for fit in fits if fit.verdict == "reliable" and _far(fit, results)]
    reliable = [fit for fit in fits if fit.verdict == "reliable" and fit not in contradicted]
    weighted = [fit for fit in fits if fit.verdict == "reweight"]
    return Conclusion(
        _headline(results, reliable, weighted),
        tuple(_points(results, reliable, contradicted)),
        tuple(_next_steps(results, reliable, weighted)),
    )


def _headline(results: Results, reliable: Sequence[Fitted], weighted: Sequence[Fitted]) -> str:
    fits, count = results.fits, len(results.outcomes)
    if not fits:
        return "Every fit failed." if count > 1 else "The fit failed."
    usable = f"{_names(weighted)} can be used with weighted draws" if weighted else ""
    if not reliable:
        none = "No fit can be believed as it is" if count > 1 else "The fit cannot be believed"
        return f"{none}{f', but {usable}' if usable else ''}."
    if len(reliable) == count:
        return "All fits can be believed." if count > 1 else "The fit can be believed."
    believed = f"{_names(reliable)} can be believed{f'; {usable}' if usable else ''}"
    rest = count - len(reliable) - len(weighted)
    return f"{believed}{('', '; the other cannot')[rest] if rest < 2 else '; the others cannot'}."


def _points(
    results: Results, reliable: Sequence[Fitted], contradicted: Sequence[Fitted]
) -> Iterator[str]:
    standard = [fit for fit in results.fits if fit.label == results.reference.label]
    for fit in standard:
        if fit.verdict != "reliable":
            yield f"The reference, {fit.label}, is itself {fit.verdict}: judge nothing by it."
    for fit in contradicted:
        yield (
            f"{fit.label} is called reliable by its own draws, but the reference contradicts it: "
            f"{_where(fit, results)}."
        )
    for fit in results.fits:
        missing = shortfall(fit, results)
        if missing is not None and fit.verdict in USABLE:
            yield (
                f"{fit.label} is called {fit.verdict} by its own draws, but its evidence is "
                f"{short_number(missing.nats)} less than that of {missing.better.label}: it misses "
                f"about {missing.mass:.0%} of the posterior's mass."
            )
    yield from _by_verdict(results)
    for failure in results.failures:
        yield f"{failure.label} failed: {failure.message}"
    held = [fit for fit in reliable if fit.label != results.reference.label]
    worst = [found for fit in held if (found := worst_distance(fit, results)) is not None]
    if worst:
        shift = max(abs(found.z_shift) for found in worst)
        spread = max(abs(math.log(found.sd_ratio)) for found in worst)
        yield (
            f"The means of {_names(held)} are within {two_decimals(shift)} reference standard "
            f"deviations of the reference, and the standard deviations within "
            f"{math.expm1(spread):.0%}."
        )
    for site, labels in results.left_out.items():
        yield f"Site {site} is left out: not every fit has it ({', '.join(labels)})."


def _by_verdict(results: Results) -> Iterator[str]:
    """One point for all fits with the same verdict in the same words."""
    alike: dict[str, list[Fitted]] = {}
    for fit in results.fits:
        if fit.verdict != "reliable":
            said = f"{fit.verdict}. {fit.diagnosis.verdict.sentence}"
            alike.setdefault(said, []).append(fit)
    for said, fits in alike.items():
        far = [fit for fit in fits if _far(fit, results)]
        each = [f"{fit.label}: " * (len(fits) > 1) + _where(fit, results) for fit in far]
        against = f" Against the reference, {'; '.join(each)}." if each else ""
        yield f"{_names(fits)}: {said}{against}"


def _next_steps(
    results: Results, reliable: Sequence[Fitted], weighted: Sequence[Fitted]
) -> Iterator[str]:
    own = [fit for fit in reliable if fit.label != results.reference.label]
    if own:
        timed = [fit for fit in own if fit.seconds is not None]
        if len(own) > 1 and len(timed) == len(own):
            quickest = min(timed, key=lambda fit: fit.seconds or 0.0)
            yield f"Take {quickest.label}, the quickest of the fits that can be believed."
        else:
            yield f"Take {own[0].label}."
        return
    others = list(weighted) or [f for f in results.fits if f.label != results.reference.label]
    if others:
        best = min(others, key=_rank)
        for step in best.diagnosis.verdict.advice[:MOST_STEPS]:
            yield step if len(results.outcomes) == 1 else f"{best.label}: {step}"


def _rank(fit: Fitted) -> tuple[int, float]:
    """The most promising first: a fit that misses a mode is right elsewhere."""
    order = ("reweight", "misses mass", "doubtful", "not converged", "unknown", "far off")
    place = order.index(fit.verdict) if fit.verdict in order else len(order)
    estimate = evidence_of(fit.diagnosis).estimate
    # Estimates of the evidence fall short of it rather than exceed it: the largest is the best.
    return place, math.inf if estimate is None else -estimate


def _far(fit: Fitted, results: Results) -> bool:
    worst = worst_distance(fit, results)
    if worst is None or fit.label == results.reference.label:
        return False
    ratio = abs(math.log(worst.sd_ratio)) if worst.sd_ratio > 0 else math.inf
    return abs(worst.z_shift) > FAR_MEAN or ratio > FAR_LOG_RATIO


def _where(fit: Fitted, results: Results) -> str:
    worst = worst_distance(fit, results)
    if worst is None:
        return ""
    parts = []
    if abs(worst.z_shift) > FAR_MEAN:
        parts.append(
            f"the mean of {worst.mean_at} is off by {short_number(abs(worst.z_shift))} reference "
            "standard deviations"
        )
    if worst.sd_ratio <= 0 or abs(math.log(worst.sd_ratio)) > FAR_LOG_RATIO:
        parts.append(
            f"the standard deviation of {worst.sd_at} is {short_number(worst.sd_ratio)} times that "
            "of the reference"
        )
    return " and ".join(parts)


def _names(fits: Sequence[Fitted]) -> str:
    labels = [fit.label for fit in fits]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
