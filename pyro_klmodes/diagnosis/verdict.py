"""Can a fit be believed: the rules, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyro_klmodes.diagnosis.weight_summary import CONSTANT, WeightSummary

__all__ = ["TrustedEvidence", "Verdict", "WorstShift", "undecided", "verdict"]

# Short of the trusted evidence: by more than chance, and by more than 1 % of the posterior's mass.
# A far mode with a twentieth of the mass makes the standard deviation half as large again.
SHORT_IN_ERRORS, SHORT_IN_NATS = 4.0, 0.01
# Agreement with the trusted evidence is worth something if it could have failed: four standard
# errors of the difference are at most a tenth.
PRECISE = 0.1
# Shares of the draws that are effective.
NEARLY_ALL, MANY_EFFECTIVE, VERY_FEW_EFFECTIVE = 0.95, 0.1, 0.01
# Effective draws with which the standard error of a mean is a tenth of a standard deviation.
ENOUGH_EFFECTIVE = 100.0
# The guide's own moments are right as they are within these: a mean off by 0.15 standard
# deviations, and a standard deviation by 15 %. What shows is the guide's error and the weights'.
SMALL_SHIFT, SMALL_LOG_RATIO = 0.15, math.log(1.15)
# Draws from beyond the guide are fewer: they have to contradict more clearly.
CLEAR_SHIFT, CLEAR_LOG_RATIO = 0.25, math.log(1.25)


@dataclass(frozen=True)
class TrustedEvidence:
    """A log evidence to hold a fit against.

    Attributes:
        value: of the log evidence.
        error: its standard error, zero if it is exact.
        origin: where it is from, in words.
    """

    value: float
    error: float = 0.0
    origin: str = "the exact value"


@dataclass(frozen=True)
class WorstShift:
    """How far the guide's moments are from those of the weighted draws, at worst.

    Attributes:
        mean: the largest distance of means, in standard deviations.
        mean_at: the parameter it is at.
        log_ratio: the logarithm of the ratio of standard deviations that is furthest from zero,
            positive where the guide is too wide.
        sd_at: the parameter it is at.
    """

    mean: float
    mean_at: str
    log_ratio: float
    sd_at: str

    @property
    def small(self) -> bool:
        """Whether the guide's draws can be used as they are."""
        return self.mean <= SMALL_SHIFT and self.small_spread

    @property
    def small_spread(self) -> bool:
        """Whether their standard deviations can."""
        return abs(self.log_ratio) <= SMALL_LOG_RATIO

    @property
    def clear(self) -> bool:
        """Whether two sets of draws contradict each other."""
        return self.mean > CLEAR_SHIFT or abs(self.log_ratio) > CLEAR_LOG_RATIO


@dataclass(frozen=True)
class Verdict:
    """A word and what it means.

    Attributes:
        word: "reliable", "reweight", "doubtful", "misses mass" or "far off"; of chains "reliable"
            or "not converged"; "unknown" where nothing can be said.
        sentence: what that means for this fit.
        advice: what to try next, most promising first.
    """

    word: str
    sentence: str
    advice: tuple[str, ...] = ()


def verdict(
    weights: WeightSummary,
    trusted: TrustedEvidence | None = None,
    shift: WorstShift | None = None,
    beyond: WorstShift | None = None,
    combined: WorstShift | None = None,
) -> Verdict:
    """In a word and in a sentence: can the fit be believed?

    In this order:

    1. A guide that leaves out a mode fits well where it draws. Where the exact evidence is known,
       or an estimate that does not come from the guide, an estimate that falls short of it by more
       than chance and 0.01 is "misses mass"; chance is four standard errors and half a squared one,
       as much as the bias that was taken out of the estimate. So are moments of the weighted draws
       that differ by more than 0.25 standard deviations or 25 % from those of draws that reach
       beyond the guide.
    2. Weights are well behaved if Pareto k-hat is at most its limit for this number of draws,
       min(1 - 1/log10 S, 0.7) of Vehtari et al. (2024), and at least 100 draws (or a tenth of
       them) are effective. Then the moments of the weighted draws can be believed. If the guide's
       own differ from them by at most 0.15 standard deviations and 15 %, in every parameter and
       in the worst linear combination, the fit is "reliable"; otherwise it is "reweight": the
       weighted draws can be used, and only those. A combination counts if it is off by more than
       chance, four standard errors.
    3. Weights that hardly vary have a k-hat that is noise. If 95 % of the draws are effective they
       count as well behaved where the trusted evidence is met and four standard errors of the
       difference are at most 0.1. Weights that come in lumps, as those of one wide normal over two
       modes, can have a k-hat above 1 as well although they are bounded; but so have some with a
       heavy tail, so with a tenth of the draws effective the fit is "doubtful".
    4. A k-hat of at most 1 with at least a hundredth of the draws effective is "doubtful", anything
       else "far off" (beyond 1 the weights have no mean; Yao et al., 2018).

    Args:
        weights: The summary of a fit's log-weights.
        trusted: The exact log evidence or one that was found without the guide, None if unknown.
        shift: Of the guide's moments against those of the weighted draws, None if unknown.
        beyond: Of the moments of the weighted draws against those of draws that do not come from
            the guide, None if unknown.
        combined: As `shift`, of linear combinations of the parameters, None if unknown.

    Example:
        >>> weights = WeightSummary(0.3, 0.7, 3000.0, 4000, 1, 0, -1.2, 0.01)
        >>> verdict(weights).word, verdict(weights, TrustedEvidence(-0.5)).word
        ('reliable', 'misses mass')
        >>> verdict(weights, shift=WorstShift(0.0, "mu", -0.7, "mu")).word
        'reweight'
    """
    tail_is_light = _tail_is_light(weights)
    share, lumps = _share(weights), _share(weights) > MANY_EFFECTIVE
    short, chance = _shortfall(weights, trusted)

    if trusted and short > max(SHORT_IN_NATS, chance) and (tail_is_light or lumps):
        return Verdict(
            "misses mass",
            f"The guide's evidence falls short of {trusted.origin}: about "
            f"{-math.expm1(-short):.0%} of the posterior's mass is hardly ever reached.",
        )
    if (tail_is_light or lumps) and beyond is not None and beyond.clear:
        return Verdict(
            "misses mass",
            "Draws that reach further than the guide give other moments: "
            f"{_where(beyond, CLEAR_SHIFT, CLEAR_LOG_RATIO)}.",
        )
    if tail_is_light:
        return _usable(shift, combined, "The weights are well behaved")
    if share > NEARLY_ALL and abs(short) <= chance <= PRECISE:
        return _usable(
            shift,
            combined,
            f"{share:.0%} of the draws are effective and the evidence agrees with "
            f"{trusted.origin if trusted else ''}; the k-hat of weights that hardly vary is noise",
        )
    if lumps:
        return Verdict(
            "doubtful",
            f"{share:.0%} of the draws are effective, yet k-hat warns: either the weights come in "
            "lumps, as with several modes, or rare large ones are still unseen.",
        )
    if weights.k_hat < 1.0 and share >= VERY_FEW_EFFECTIVE:
        return Verdict(
            "doubtful",
            "The weights vary too much for this number of draws, so the evidence estimate and "
            "its standard error are not to be relied on.",
        )
    return Verdict(
        "far off",
        "A few draws carry most of the weight: the guide is far from the posterior and the "
        "evidence estimate means nothing.",
    )


def undecided(weights: WeightSummary, trusted: TrustedEvidence | None) -> bool:
    """Whether the evidence falls short by what would matter, and by no more than chance.

    More draws then tell which of the two it is, if there are effective ones among them.
    """
    short, chance = _shortfall(weights, trusted)
    worth_it = _tail_is_light(weights) or _share(weights) > MANY_EFFECTIVE
    return worth_it and SHORT_IN_NATS < short <= chance


def _share(weights: WeightSummary) -> float:
    """Of the draws that are effective."""
    return weights.effective_draws / weights.num_draws


def _tail_is_light(weights: WeightSummary) -> bool:
    # With few effective draws a small k-hat is chance: the tail it is fitted to has not been seen.
    enough = weights.effective_draws >= min(ENOUGH_EFFECTIVE, MANY_EFFECTIVE * weights.num_draws)
    # Constant weights have no tail to fit: k-hat is infinite although nothing could be better.
    return (weights.k_hat <= weights.k_hat_limit and enough) or _share(weights) > CONSTANT


def _usable(shift: WorstShift | None, combined: WorstShift | None, because: str) -> Verdict:
    if shift is None or shift.small:
        if combined is not None and not combined.small:
            return Verdict(
                "reweight",
                f"{because}, so the weighted draws can be used, but the guide's own only for one "
                f"parameter at a time: {_where(combined, SMALL_SHIFT, SMALL_LOG_RATIO)}.",
            )
        moments = "" if shift is None else ", and the guide's moments agree with the weighted ones"
        return Verdict("reliable", f"{because}{moments}.")
    return Verdict(
        "reweight",
        f"{because}, so the weighted draws can be used, but not the guide's own: "
        f"{_where(shift, SMALL_SHIFT, SMALL_LOG_RATIO)}.",
    )


def _where(shift: WorstShift, mean_limit: float, ratio_limit: float) -> str:
    """Which moments are off by more than the limits."""
    where = []
    if shift.mean > mean_limit:
        where.append(f"the mean of {shift.mean_at} is off by {shift.mean:.1f} standard deviations")
    if abs(shift.log_ratio) > ratio_limit:
        much = f"{math.exp(abs(shift.log_ratio)):.1f} times"
        wide = "large" if shift.log_ratio > 0 else "small"
        where.append(f"the standard deviation of {shift.sd_at} is {much} too {wide}")
    return " and ".join(where)


def _shortfall(weights: WeightSummary, trusted: TrustedEvidence | None) -> tuple[float, float]:
    """By how much the evidence is short of the trusted one, and how much may be chance."""
    if trusted is None or weights.log_evidence is None:
        return math.nan, math.nan
    own = weights.log_evidence_error or 0.0
    # The bias of own^2 / 2 that the estimate was rid of is itself estimated: as much again counts
    # as chance. It is next to nothing where the error is small.
    chance = SHORT_IN_ERRORS * math.hypot(own, trusted.error) + 0.5 * own**2
    return trusted.value - weights.log_evidence, chance
