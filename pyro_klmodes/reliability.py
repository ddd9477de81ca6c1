"""Can a fit be believed: what the log-weights of its posterior draws say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from pyro_klmodes.weights import effective_sample_size, khat_threshold, log_evidence, pareto_khat

__all__ = ["WeightSummary", "summarise_weights", "verdict"]

# Short of the exact evidence: by more than chance, and by more than 5 % of the posterior's mass.
SHORT_IN_ERRORS, SHORT_IN_NATS = 4.0, 0.05
# Shares of the draws that are effective.
CONSTANT, MANY_EFFECTIVE, VERY_FEW_EFFECTIVE = 0.999, 0.1, 0.01
# Effective draws with which the standard error of the log evidence is about a tenth.
ENOUGH_EFFECTIVE = 100.0


@dataclass(frozen=True)
class WeightSummary:
    """What the log-weights of S posterior draws say about a fit.

    Attributes:
        k_hat: Pareto k-hat, the largest over the cells of the local plates.
        k_hat_limit: The k-hat below which S draws give usable weights.
        effective_draws: Effective sample size out of S, the smallest over the cells.
        num_draws: S.
        cells: Number of cells of the local plates, 1 for one joint weight.
        log_evidence: Estimate of the log evidence, None if the draws saw a minibatch only.
        log_evidence_error: Its standard error.
    """

    k_hat: float
    k_hat_limit: float
    effective_draws: float
    num_draws: int
    cells: int
    log_evidence: float | None
    log_evidence_error: float | None


def summarise_weights(
    log_w: Tensor,  # (S, *local)
    *,
    scale: float = 1.0,
    rest: float = 0.0,
) -> WeightSummary:
    """Reliability and evidence from log-weights.

    With local plates the evidence is a product over their cells, so its logarithm is estimated as
    ``sum_c log mean_s w_sc`` with standard error ``sqrt(sum_c se_c^2)``. The joint weight
    ``prod_c w_sc`` has the same mean, but its spread grows exponentially with the number of cells.

    Args:
        log_w: Log-weights of S draws, one column per cell of the local plates.
        scale: Subsampling factor of the draws. Unless it is 1 they saw a minibatch, which does
            not determine the evidence of the whole data.
        rest: Log-probability of the sites that depend on no latent value: they are no part of the
            weights, but of the evidence.

    Example:
        >>> import torch
        >>> summary = summarise_weights(torch.full((100, 3), 2.0, dtype=torch.float64))
        >>> summary.log_evidence, summary.log_evidence_error, summary.cells
        (6.0, 0.0, 3)
    """
    cells = log_w.double().reshape(log_w.shape[0], -1)
    whole_data = scale == 1.0
    estimates, errors = log_evidence(cells)
    return WeightSummary(
        k_hat=float(pareto_khat(cells).max()),
        k_hat_limit=khat_threshold(len(cells)),
        effective_draws=float(effective_sample_size(cells).min()),
        num_draws=len(cells),
        cells=cells.shape[1],
        log_evidence=float(estimates.sum()) + rest if whole_data else None,
        log_evidence_error=float(errors.square().sum().sqrt()) if whole_data else None,
    )


def verdict(weights: WeightSummary, exact_log_evidence: float | None) -> tuple[str, str]:
    """In a word and in a sentence: can the fit be believed?

    Pareto k-hat decides: at most its limit for this number of draws, min(1 - 1/log10 S, 0.7) of
    Vehtari et al. (2024), is "reliable" if at least 100 draws (or a tenth of them) are effective;
    up to 1 is "doubtful"; beyond, or with less than a hundredth of the draws effective, it is "far
    off". Where at least a tenth of the draws are effective, two cases in which k-hat misleads are
    told apart:

    * A guide that leaves out a mode fits well where it draws. Where the exact evidence is known,
      an estimate that falls short of it is "misses mass".
    * Weights that come in lumps, as those of one wide normal over two modes, have no Pareto tail
      and can have a k-hat above 1 although they are bounded. This is "doubtful", and "reliable"
      where the exact evidence is met.

    Args:
        weights: The summary of a fit's log-weights.
        exact_log_evidence: The exact log evidence, None when unknown.

    Returns:
        The word and the sentence.

    Example:
        >>> weights = WeightSummary(0.3, 0.7, 3000.0, 4000, 1, -1.2, 0.01)
        >>> verdict(weights, None)[0], verdict(weights, -0.5)[0]
        ('reliable', 'misses mass')
    """
    share = weights.effective_draws / weights.num_draws
    # With few effective draws a small k-hat is chance: the tail it is fitted to has not been seen.
    enough = weights.effective_draws >= min(ENOUGH_EFFECTIVE, MANY_EFFECTIVE * weights.num_draws)
    # Constant weights have no tail to fit: k-hat is infinite although nothing could be better.
    tail_is_light = (weights.k_hat <= weights.k_hat_limit and enough) or share > CONSTANT
    short = _shortfall(weights, exact_log_evidence)

    chance = SHORT_IN_ERRORS * (weights.log_evidence_error or 0.0)
    misses = short is not None and short > max(SHORT_IN_NATS, chance)
    if short is not None and misses and (tail_is_light or share > MANY_EFFECTIVE):
        return "misses mass", (
            "The guide fits where it draws, but the evidence falls short of the exact value: about "
            f"{-math.expm1(-short):.0%} of the posterior's mass is hardly ever reached."
        )
    if tail_is_light:
        return "reliable", "The weights are well behaved: draws can be reweighted to the posterior."
    if share > MANY_EFFECTIVE:
        if short is not None and abs(short) <= chance:
            return "reliable", (
                f"{share:.0%} of the draws are effective and the exact evidence is met; k-hat is "
                "large because the weights come in lumps, not because of a heavy tail."
            )
        return "doubtful", (
            f"{share:.0%} of the draws are effective, yet k-hat warns: either the weights come in "
            "lumps, as with several modes, or rare large ones are still unseen. Take more draws."
        )
    if weights.k_hat < 1.0 and share >= VERY_FEW_EFFECTIVE:
        return "doubtful", (
            "The weights vary too much for this number of draws, so the evidence estimate and "
            "its standard error are not to be relied on. Try a richer guide or more steps."
        )
    return "far off", (
        "A few draws carry most of the weight: the guide is far from the posterior and the "
        "evidence estimate means nothing."
    )


def _shortfall(weights: WeightSummary, exact_log_evidence: float | None) -> float | None:
    """Exact minus estimated log evidence, None if unknown."""
    if exact_log_evidence is None or weights.log_evidence is None:
        return None
    return exact_log_evidence - weights.log_evidence
