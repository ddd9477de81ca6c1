"""The log evidence according to one fit: bounds and estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pyro_klmodes.diagnosis import Diagnosis
from pyro_klmodes.diagnostics import Evidence

__all__ = ["EvidenceOf", "evidence_of"]


@dataclass(frozen=True)
class EvidenceOf:
    """What one fit says about the log evidence; None where it says nothing.

    Attributes:
        elbo: The evidence lower bound, the mean log-weight.
        lower: The largest of all lower bounds.
        estimate: From importance weights.
        error: Its standard error.
        upper: The smallest of all upper bounds; there is one only with draws of the posterior.
    """

    elbo: float | None = None
    lower: float | None = None
    estimate: float | None = None
    error: float | None = None
    upper: float | None = None


def evidence_of(diagnosis: Diagnosis) -> EvidenceOf:
    """Pick the numbers that a table has room for."""
    weights = diagnosis.weights
    lower = _finite(diagnosis.evidence, "lower bound")
    upper = _finite(diagnosis.evidence, "upper bound")
    return EvidenceOf(
        elbo=lower.get("ELBO"),
        lower=max(lower.values(), default=None),
        estimate=None if weights is None else weights.log_evidence,
        error=None if weights is None else weights.log_evidence_error,
        upper=min(upper.values(), default=None),
    )


def _finite(evidence: Mapping[str, Evidence], kind: str) -> dict[str, float]:
    return {
        name: found.value
        for name, found in evidence.items()
        if found.kind == kind and math.isfinite(found.value)
    }
