"""A comparison as pandas tables, unrounded: one row per fit, and one per parameter and fit."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from pyro_klmodes.entries import Fitted, Outcome, Results
from pyro_klmodes.entries.distance import distance
from pyro_klmodes.entries.evidence import evidence_of
from pyro_klmodes.entries.recipe import Recipe

__all__ = ["fits_frame", "parameters_frame"]

FIT_COLUMNS = (
    "guide",
    "loss",
    "verdict",
    "elbo",
    "log_evidence",
    "log_evidence_error",
    "k_hat",
    "k_hat_limit",
    "effective_draws",
    "num_draws",
    "r_hat",
    "elpd_loo",
    "elpd_loo_se",
    "loo_bad_k",
    "steps",
    "particles",
    "seconds",
    "gradient_evaluations",
    "optimizer",
    "message",
)
PARAMETER_COLUMNS = (
    "mean",
    "sd",
    "corrected_mean",
    "corrected_sd",
    "reference_mean",
    "reference_sd",
    "z_shift",
    "sd_ratio",
)


def fits_frame(results: Results) -> pd.DataFrame:
    """One row per outcome; what is not known is NaN, and failed fits have a message."""
    rows = [_row(outcome) for outcome in results.outcomes]
    labels = pd.Index([outcome.label for outcome in results.outcomes], name="fit")
    return pd.DataFrame(rows, index=labels, columns=list(FIT_COLUMNS))


def parameters_frame(results: Results) -> pd.DataFrame:
    """One row per parameter that all fits have, and fit."""
    rows, index = [], []
    for parameter in results.scalars():
        known = parameter.of(results.reference.moments)
        for fit in results.fits:
            apart = distance(fit, parameter, results)
            rows.append(
                (
                    *_pair(parameter.of(fit.moments)),
                    *_pair(parameter.of(fit.corrected)),
                    *_pair(known),
                    math.nan if apart is None else apart.z_shift,
                    math.nan if apart is None else apart.sd_ratio,
                )
            )
            index.append((parameter.name, fit.label))
    both = pd.MultiIndex.from_tuples(index, names=["parameter", "fit"])
    return pd.DataFrame(rows, index=both, columns=list(PARAMETER_COLUMNS), dtype=float)


def _pair(found: tuple[float, float] | None) -> tuple[float, float]:
    return (math.nan, math.nan) if found is None else found


def _row(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Fitted):
        named = {"guide": outcome.guide, "loss": outcome.loss or ""}
        unknown = dict.fromkeys(FIT_COLUMNS[3:-2], math.nan)
        words = {"optimizer": "", "message": outcome.message}
        return {**named, "verdict": "failed", **unknown, **words}
    weights, chains = outcome.diagnosis.weights, outcome.diagnosis.chains
    evidence, recipe = evidence_of(outcome.diagnosis), outcome.recipe or Recipe()
    numbers: dict[str, float | None] = {
        "elbo": evidence.elbo,
        "log_evidence": evidence.estimate,
        "log_evidence_error": evidence.error,
        "num_draws": outcome.diagnosis.num_draws,
        "steps": recipe.steps,
        "particles": recipe.particles,
        "seconds": outcome.seconds,
        "gradient_evaluations": outcome.gradient_evaluations,
    }
    if weights is not None:
        numbers |= {
            "k_hat": weights.k_hat,
            "k_hat_limit": weights.k_hat_limit,
            "effective_draws": weights.effective_draws,
        }
    if chains is not None:
        numbers |= {"r_hat": chains.worst_r_hat, "effective_draws": chains.fewest_effective}
    if outcome.loo is not None:
        numbers |= {
            "elpd_loo": outcome.loo.elpd,
            "elpd_loo_se": outcome.loo.se,
            "loo_bad_k": outcome.bad_loo,
        }
    known = {name: math.nan if value is None else value for name, value in numbers.items()}
    return {
        **dict.fromkeys(FIT_COLUMNS, math.nan),
        "guide": outcome.guide,
        "loss": outcome.loss or "",
        "verdict": outcome.verdict,
        **known,
        "optimizer": recipe.optimizer,
        "message": " ".join(outcome.notes),
    }
