"""Functions of log-weights alone: particles first, then any number of independent cells."""

from pyro_klmodes.weights.logspace import log_mean_exp, log_normalise, power_mean, self_normalise
from pyro_klmodes.weights.pareto import pareto_khat, pareto_smooth, pareto_tail_length
from pyro_klmodes.weights.ranks import descending_ranks, tail_adaptive_weights
from pyro_klmodes.weights.summaries import (
    effective_sample_size,
    khat_threshold,
    log_evidence,
    weighted_moments,
)
from pyro_klmodes.weights.tempering import raised_exponent, tempering_exponent

__all__ = [
    "descending_ranks",
    "effective_sample_size",
    "khat_threshold",
    "log_evidence",
    "log_mean_exp",
    "log_normalise",
    "pareto_khat",
    "pareto_smooth",
    "pareto_tail_length",
    "power_mean",
    "raised_exponent",
    "self_normalise",
    "tail_adaptive_weights",
    "tempering_exponent",
    "weighted_moments",
]
