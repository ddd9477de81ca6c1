"""How much of the mass of Markov chains is around each mode."""

from __future__ import annotations

import torch

from pyro_klmodes.diagnosis.elsewhere import ENOUGH_EFFECTIVE, LEAST_MASS
from pyro_klmodes.diagnosis.second_opinion import SecondOpinion
from pyro_klmodes.diagnostics import ModeCoverage, mode_coverage
from pyro_klmodes.errors import KLModesError
from pyro_klmodes.inference.target import Target
from pyro_klmodes.posteriors import Chains

__all__ = ["chain_coverage"]


@torch.no_grad()
def chain_coverage(chains: Chains, opinion: SecondOpinion) -> ModeCoverage | None:
    """Count the draws of chains around modes that were found without a guide.

    None where there are fewer than two such modes, or the chains have no place in the space in
    which they were looked for.
    """
    kept = opinion.masses >= LEAST_MASS
    if chains.model is None or opinion.effective_draws < ENOUGH_EFFECTIVE or kept.sum() < 2:
        return None
    try:
        target = Target.of(chains.model, chains.args, chains.kwargs)
    except KLModesError:
        return None
    values = chains.pooled()
    if any(block.latent.name not in values for block in target.packing.blocks):
        return None
    u = target.vectors(values).to(opinion.modes)
    if u.shape[1] != opinion.modes.shape[1] or not bool(u.isfinite().all()):
        return None
    return mode_coverage(u, opinion.modes[kept], masses=opinion.masses[kept])
