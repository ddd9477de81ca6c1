"""The terms of a model, summed over all that is neither particles nor may be local."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.obs_mask import drawn_for
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.runs import ModelRun
from pyro_klmodes.tracing.terms import Term, model_terms

__all__ = ["plates_around_latents", "refuse_shared_masks", "term_sums"]


def term_sums(
    run: ModelRun,
    kept: Collection[str],
    particle_dim: int,
    *,
    enumerated: bool,
) -> list[Term]:
    """The terms of a run, which ``weigh`` weighs like the ones they are sums of.

    They keep their dimensions, with a size of one where they are sums.

    Args:
        run: of a model, for many particles.
        kept: names of the plates that are not summed over.
        particle_dim: the batch dimension of the particles.
        enumerated: whether sites are summed out.

    Raises:
        CannotLift: if a ``poutine.scale`` is a tensor, which weighs the elements of a sum.
    """
    terms = run.terms
    if terms is None:
        terms = (model_terms_summed if enumerated else model_terms)(run.trace)
    return [_summed(term, kept, particle_dim) for term in terms]


def _summed(term: Term, kept: Collection[str], particle_dim: int) -> Term:
    if isinstance(term.scale, Tensor):
        raise CannotLift(f"the poutine.scale of site '{term.name}' is a tensor")
    keep = {particle_dim, *(d for name, d in term.plates.items() if name in kept)}
    x = term.log_prob
    dims = [d for d in range(-x.dim(), 0) if d not in keep and x.size(d) > 1]
    log_prob = x.sum(dims, keepdim=True) if dims else x
    return replace(term, log_prob=log_prob, site=None, counts=None)


def plates_around_latents(guide: Trace) -> frozenset[str]:
    """The plates around every latent site of a guide, all local plates among them."""
    around = [frozenset(plates_of(site)) for site in guide.nodes.values() if is_latent(site)]
    return frozenset.intersection(*around) if around else frozenset()


def refuse_shared_masks(guide: Trace, model: Trace) -> None:
    """Of a model that is not run there are no masks for the terms of a guide.

    Raises:
        CannotLift: if the guide takes one.
    """
    for name in guide.nodes:
        if drawn_for(name, model) is not None:
            raise CannotLift(f"the mask of '{name}' is in the run of the model")
