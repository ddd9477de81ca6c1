"""What log-weights and draws say about a fit: pure functions, tensors in, small records out."""

from pyro_klmodes.diagnostics.collapse import (
    ActiveUnits,
    MutualInformation,
    active_units,
    mutual_information,
)
from pyro_klmodes.diagnostics.combinations import Combinations, combinations
from pyro_klmodes.diagnostics.coverage import Coverage, expected_coverage, tarp, tarp_shares
from pyro_klmodes.diagnostics.error_bounds import ErrorBounds, error_bounds
from pyro_klmodes.diagnostics.evidence import Evidence, evidence
from pyro_klmodes.diagnostics.iterates import (
    IterateAverage,
    iterate_average,
    iterate_ess,
    iterate_rhat,
)
from pyro_klmodes.diagnostics.khat import KHat, khat
from pyro_klmodes.diagnostics.marginal_khat import MarginalKHat, marginal_khat
from pyro_klmodes.diagnostics.modes import ModeCoverage, Modes, find_modes, mode_coverage
from pyro_klmodes.diagnostics.moments import CorrectedMoments, corrected_moments
from pyro_klmodes.diagnostics.ranks import (
    EcdfBands,
    RankUniformity,
    ecdf_bands,
    randomised_ranks,
    rank_uniformity,
)
from pyro_klmodes.diagnostics.stein import SteinTest, stein_discrepancy, stein_test
from pyro_klmodes.diagnostics.symmetry import VSBCReading, vsbc_reading

__all__ = [
    "ActiveUnits",
    "Combinations",
    "CorrectedMoments",
    "Coverage",
    "EcdfBands",
    "ErrorBounds",
    "Evidence",
    "IterateAverage",
    "KHat",
    "MarginalKHat",
    "ModeCoverage",
    "Modes",
    "MutualInformation",
    "RankUniformity",
    "SteinTest",
    "VSBCReading",
    "active_units",
    "combinations",
    "corrected_moments",
    "ecdf_bands",
    "error_bounds",
    "evidence",
    "expected_coverage",
    "find_modes",
    "iterate_average",
    "iterate_ess",
    "iterate_rhat",
    "khat",
    "marginal_khat",
    "mode_coverage",
    "mutual_information",
    "randomised_ranks",
    "rank_uniformity",
    "stein_discrepancy",
    "stein_test",
    "tarp",
    "tarp_shares",
    "vsbc_reading",
]
