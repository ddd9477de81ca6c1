"""A model that is run once, for one particle, and mapped over the values of all of them.

A model written as ``a[county]``, ``X @ w`` or with an enumerated ``mu[z]`` does not broadcast over
a batch dimension on the left. The guide does, nearly always: it draws for all particles in one run.
The model is then run under ``torch.func.vmap``, in which it sees one particle. Only tensors leave
such a run; what is the same for all particles, as names, plates and ratios, is noted on the side.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.tracing.allowed import CollectAllowed, allowed
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.masks import unmasked
from pyro_klmodes.tracing.over_particles import NotMapped, over_particles, same_for_all
from pyro_klmodes.tracing.particles import Particles, Single, Together
from pyro_klmodes.tracing.plates import plates_of
from pyro_klmodes.tracing.runs import ModelRun, Pair, run_model
from pyro_klmodes.tracing.terms import Term, model_terms, scored_sites

__all__ = ["mapped_run", "of_particles"]


def mapped_run(
    pair: Pair,
    particles: Particles,
    values: Mapping[str, Tensor],
    guide: Trace,
    *,
    enumerated: bool,
) -> ModelRun:
    """Run a model mapped over the draws of a guide; its terms are laid out as in a shared run.

    The particle dimension is left of all plates; terms that are the same for all have none.

    Args:
        pair: the model is run.
        particles: how many; one needs no map.
        values: of the guide's sites, with a particle dimension, and indices of plates.
        guide: the guide's trace, which tells the plates of the values.
        enumerated: whether model sites marked for parallel enumeration are summed out.

    Raises:
        NotMapped: if the model cannot be mapped, or a ``poutine.scale`` depends on a latent value.
    """
    if not isinstance(particles, Together) or particles.count == 1:
        return ModelRun(run_model(pair, particles, values, enumerated=enumerated))
    latents = of_particles(values, guide, particles.count)
    shared = {name: value for name, value in values.items() if name not in latents}
    collector = CollectAllowed.active()
    checks = dist.is_validation_enabled() or collector is not None
    traces: list[Trace] = []
    noted: list[list[Term]] = []

    def one(here: dict[str, Tensor]) -> dict[str, Any]:
        trace = run_model(
            pair, Single(particles.nesting), {**shared, **here}, enumerated=enumerated
        )
        sites = scored_sites(trace)
        found: dict[str, Any] = {
            "masks": {s["name"]: s["mask"] for s in sites if isinstance(s["mask"], Tensor)},
            "allowed": [allowed(s) for s in sites] if checks else [],
        }
        terms = (model_terms_summed if enumerated else model_terms)(trace)
        found["log_probs"] = [t.log_prob for t in terms]
        found["counts"] = {i: _counts(t) for i, t in enumerate(terms) if _counts(t) is not None}
        found["scales"] = {i: t.scale for i, t in enumerate(terms) if isinstance(t.scale, Tensor)}
        traces[:], noted[:] = [trace], [terms]
        return found

    with nullcontext() if collector is None else collector.paused():
        found = over_particles(one, latents, randomness="same")  # a plate may draw a minibatch
    if collector is None:
        _complain_of_values(found["allowed"], pair, values, guide, particles, enumerated=enumerated)
    else:
        collector.found += found["allowed"]
    (trace,), (terms,) = traces, noted
    for name, mask in found["masks"].items():
        trace.nodes[name]["mask"] = _laid_out(mask, particles.nesting)
    return ModelRun(
        trace,
        [
            replace(
                term,
                log_prob=_laid_out(found["log_probs"][i], particles.nesting),
                scale=_same_scale(term, found["scales"].get(i)),
                counts=_laid_out(found["counts"][i], particles.nesting)
                if i in found["counts"]
                else None,
                site=None,  # its values have not left the map
            )
            for i, term in enumerate(terms)
        ],
    )


def of_particles(
    values: Mapping[str, Tensor],  # with a particle dimension left of all plates
    guide: Trace,
    count: int,
) -> dict[str, Tensor]:  # {site: (K, *site_shape)}
    """The values of a guide's sites as a run of one particle has them, one after the other."""
    found = {}
    for name, site in guide.nodes.items():
        if name in values and is_latent(site):
            value = values[name]
            depth = max((-d for d in plates_of(site).values()), default=0)
            inner = value.dim() - depth - site["fn"].event_dim
            rows = value.reshape((-1, *value.shape[max(inner, 0) :]))
            found[name] = rows.expand((count, *rows.shape[1:]))
    return found


def _counts(term: Term) -> Tensor | None:
    """Which elements no mask takes out; of a sum over sites, what it says by itself."""
    return term.counts if term.site is None else unmasked(term.site)


def _laid_out(
    x: Tensor,  # (K, *batch)
    nesting: int,
) -> Tensor:  # (K, 1, ..., 1, *batch), or (*batch) if it is the same for all particles
    """From particles first to particles left of all plates."""
    if same_for_all(x):
        return x[0]
    return x.reshape(len(x), *[1] * (nesting - x.dim() + 1), *x.shape[1:])


def _same_scale(term: Term, mapped: Tensor | None) -> float | Tensor:
    if mapped is None:
        return term.scale
    if not same_for_all(mapped):
        raise NotMapped(f"the poutine.scale of site '{term.name}' depends on a latent value")
    return mapped[0]


def _complain_of_values(
    checks: list[Tensor],  # (K,) of every site
    pair: Pair,
    values: Mapping[str, Tensor],
    guide: Trace,
    particles: Together,
    *,
    enumerated: bool,
) -> None:
    """Run the model alone at the first particle that has a value which is not allowed.

    The run of its own names the site and says what is wrong.
    """
    for check in checks:
        if not bool(check.all()):
            k = int((~check).nonzero()[0])
            latents = of_particles(values, guide, particles.count)
            at = {**values, **{name: value[k] for name, value in latents.items()}}
            trace = run_model(pair, Single(particles.nesting), at, enumerated=enumerated)
            (model_terms_summed if enumerated else model_terms)(trace)
