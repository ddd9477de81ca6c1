"""What the log-weights of posterior draws say in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_klmodes.diagnosis.cell_evidence import CellEvidence
from pyro_klmodes.weights import effective_sample_size, khat_threshold, pareto_khat

__all__ = ["WeightSummary", "summarise_weights"]

CONSTANT = 0.999  # share of effective draws with which weights do not vary


@dataclass(frozen=True)
class WeightSummary:
    """What the log-weights of S posterior draws say about a fit.

    Attributes:
        k_hat: Pareto k-hat, the largest over the cells of the local plates; at most 0 in cells
            whose weights are constant.
        k_hat_limit: The k-hat below which S draws give usable weights.
        effective_draws: Effective sample size out of S, the smallest over the cells.
        num_draws: S.
        cells: Number of cells of the local plates, 1 for one joint weight.
        bad_cells: Number of cells whose k-hat is above the limit.
        log_evidence: Estimate of the log evidence, without its bias of second order; None if the
            draws saw a minibatch only.
        log_evidence_error: Its standard error.
    """

    k_hat: float
    k_hat_limit: float
    effective_draws: float
    num_draws: int
    cells: int
    bad_cells: int
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
    ``sum_c (log mean_s w_sc + se_c^2 / 2)`` with standard error ``sqrt(sum_c se_c^2)``. A logarithm
    of a mean falls short by half its squared error in expectation (delta method), which over
    thousands of cells may come to more than the error of their sum, hence the second term. The
    joint weight ``prod_c w_sc`` has the same mean, but its spread grows exponentially with the
    number of cells.

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
    evidence = CellEvidence.of(cells)
    effective = effective_sample_size(cells)
    # Weights that are constant have no tail to fit, and nothing could be better.
    constant = effective > CONSTANT * len(cells)
    k_hats = pareto_khat(cells)
    k_hats = torch.where(constant, k_hats.clamp(max=0.0), k_hats)
    limit = khat_threshold(len(cells))
    return WeightSummary(
        k_hat=float(k_hats.max()),
        k_hat_limit=limit,
        effective_draws=float(effective.min()),
        num_draws=len(cells),
        cells=cells.shape[1],
        bad_cells=int((~(k_hats <= limit)).sum()),
        log_evidence=evidence.value + rest if whole_data else None,
        log_evidence_error=evidence.error if whole_data else None,
    )
