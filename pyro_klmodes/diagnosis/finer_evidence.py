"""More draws of a guide where its evidence falls short, and that may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pyro_klmodes.diagnosis.verdict import TrustedEvidence, undecided
from pyro_klmodes.diagnosis.weight_summary import WeightSummary, summarise_weights
from pyro_klmodes.inference.isolation import seeded
from pyro_klmodes.tracing.full_data import FullData

__all__ = ["decided"]

MOST_DRAWS = 64_000


def decided(
    data: FullData,
    weights: WeightSummary,
    trusted: TrustedEvidence | None,
    seed: int,
) -> tuple[WeightSummary, tuple[str, ...]]:
    """The weights with an evidence from more draws, as long as a shortfall may be chance.

    Four standard errors are looked at several times, at most 15 times with 4000 draws; false alarms
    stay rarer than one in a thousand. Guides whose draws have a run each make no more of them.

    Args:
        data: the guide and its model; the parameters are those in the store.
        weights: of the draws there are.
        trusted: what the evidence is held against.
        seed: of the draws there are.

    Returns:
        The weights, and a note if there were more draws.
    """
    parts, size = [weights], weights.num_draws
    most = MOST_DRAWS // size if data.layout.vectorised else 1
    while undecided(weights, trusted) and len(parts) < most:
        with seeded(seed + len(parts)):
            more = data.draws(size)
        parts.append(summarise_weights(more.log_w, rest=float(more.rest)))
        weights = _with_evidence_of(parts)
    if len(parts) == 1:
        return weights, ()
    note = (
        f"the evidence fell short by no more than chance, and is from {len(parts) * size} draws of "
        "the guide now."
    )
    return weights, (note,)


def _with_evidence_of(parts: Sequence[WeightSummary]) -> WeightSummary:
    """The first summary with the mean of the evidences of all."""
    values = torch.tensor([p.log_evidence for p in parts], dtype=torch.float64)
    errors = torch.tensor([p.log_evidence_error for p in parts], dtype=torch.float64)
    return replace(
        parts[0],
        log_evidence=float(values.mean()),
        log_evidence_error=float(errors.square().sum().sqrt() / len(parts)),
    )
