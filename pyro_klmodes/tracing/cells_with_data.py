"""Which local cells hold a datum that no mask takes out."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_klmodes.tracing.cells import to_cells
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.terms import Term

__all__ = ["cells_with_data"]


def cells_with_data(draws: Draws) -> Tensor:  # (*local), bool
    """Whether anything that a cell observes counts.

    All of them, if the model observes nothing inside of them.
    """
    shape = draws.log_p.shape[draws.log_p.dim() - len(draws.plates) :]
    kept: Tensor | None = None
    for where, term in draws.terms:
        if where == "model" and _of_data(term) and set(draws.plates) <= set(term.plates):
            counts = _counts(term)
            # a dimension that is neither the particles' nor a cell's is summed out, particles too
            here = to_cells(counts, None, [term.plates[name] for name in draws.plates])[0] > 0
            kept = here if kept is None else kept | here
    if kept is None:
        return torch.ones(shape, dtype=torch.bool)
    return kept.expand(shape)


def _of_data(term: Term) -> bool:
    """Whether a term holds observations: it alone, or those that are summed over in it."""
    if term.site is not None:
        return bool(term.site["is_observed"])
    return term.counts is not None and (bool(term.summed) or not term.latent)


def _counts(term: Term) -> Tensor:
    """Ones where elements count, zeros where they are masked out."""
    if term.counts is not None:
        return term.counts.double()
    assert term.site is not None
    return unmasked(term.site).double()
