"""Draw particles from a pair of known layout and weigh them: in one run, mapped, or one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.cells import Run
from pyro_klmodes.tracing.draws import Draws
from pyro_klmodes.tracing.enumeration import model_terms_summed
from pyro_klmodes.tracing.handlers import Cut, is_delta, is_latent
from pyro_klmodes.tracing.independence import find_independent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.mapped import mapped_run
from pyro_klmodes.tracing.matching import check_sites, is_enumerated
from pyro_klmodes.tracing.particles import Single, Together
from pyro_klmodes.tracing.plates import depth, plates_of
from pyro_klmodes.tracing.runs import Pair, RunsModel, Traces, run, shared_run
from pyro_klmodes.tracing.terms import guide_terms, model_terms, scored_sites
from pyro_klmodes.tracing.weighing import weigh

__all__ = [
    "StaleLayout",
    "independent_sites",
    "model_runner",
    "run_of",
    "sample",
    "values_of",
]


class StaleLayout(UnsupportedStructure):
    """A pair has other plates or enumerated sites than when it was surveyed."""


def sample(
    pair: Pair,
    layout: Layout,
    particles: int,
    cut: Cut = Cut.NONE,
    *,
    linear: bool = False,
    outer: int = 1,
    stratified: bool = False,
    fixed: Mapping[str, Tensor] | None = None,
    by_site: bool = False,
    fixed_first: Mapping[str, Tensor] | None = None,
    around_first: Messenger | None = None,
    sites: bool = False,
    by: RunsModel | None = None,
) -> Draws:
    """Draw ``particles`` times ``outer`` particles; all of them see the same minibatch.

    Args:
        pair: what to run.
        layout: its structure, from ``survey``.
        particles: K.
        cut: where the graph is cut.
        linear: whether the objective is linear in the log-weights, see ``weigh``.
        outer: M.
        stratified: whether a mixture may spread the particles over its components, see
            ``Draws.log_share``.
        fixed: values that guide sites or plates' indices take instead of being drawn.
        by_site: whether to give the densities of every latent site too.
        fixed_first: further such values, for the first run only: that of particle 0, and of all
            others where they share it.
        around_first: entered around that run, outside of all other handlers.
        sites: whether somebody looks at the model's sites themselves, and not only at their terms:
            then particles that do not share a run have one each.
        by: how the model is run; None for what the layout says.
    """
    runs = []
    indices: Mapping[str, Tensor] = fixed or {}
    count = particles * outer
    # a single particle needs no dimension of its own
    together = None
    shared = layout.vectorised if sites or around_first is not None else layout.together
    if shared and count > 1:
        together = Together(count, layout.nesting, stratified=stratified)
    for k in range(1 if together else count):
        traces = run(
            pair,
            particles=together or Single(layout.nesting),
            cut=cut,
            fixed={**indices, **fixed_first} if fixed_first and k == 0 else indices,
            enumerated=bool(layout.enumerated),
            around=around_first if k == 0 else None,
            by=by or model_runner(layout),
        )
        indices = {**indices, **traces.indices}
        runs.append(run_of(traces, cut, layout, together=together is not None))
    return weigh(
        runs,
        particle_dim=together.dim if together else None,
        independent=partial(independent_sites, pair, layout),
        linear=linear,
        outer=outer,
        by_site=by_site,
        settled=layout.settled,
    )


def model_runner(layout: Layout) -> RunsModel:
    """How the model is run at the values of all particles."""
    return mapped_run if layout.sharing == "map" else shared_run


def run_of(traces: Traces, cut: Cut, layout: Layout, *, together: bool) -> Run:
    """The terms and values of one run.

    Raises:
        StaleLayout: if the pair is no longer as it was surveyed.
    """
    check_sites(traces)
    needed = depth([*scored_sites(traces.guide), *scored_sites(traces.model)])
    if needed > layout.nesting:
        raise StaleLayout(f"plates are {needed} deep, {layout.nesting} were expected.")
    marked = [n for n, s in traces.model.nodes.items() if is_enumerated(n, s, traces)]
    if marked and not layout.enumerated:
        raise StaleLayout(f"site '{marked[0]}' was not marked for enumeration before.")
    terms = traces.terms
    if terms is None:
        terms = (model_terms_summed if layout.enumerated else model_terms)(traces.model)
    sites = {n: s for n, s in traces.guide.nodes.items() if is_latent(s)}
    for name, site in sites.items():
        if not getattr(site["fn"], "has_rsample", False) and name not in layout.unreparameterised:
            raise StaleLayout(f"guide site '{name}' was reparameterised before.")
    return Run(
        p=list(terms),
        q=guide_terms(traces.guide, model=traces.model, cut=cut is Cut.DRAWS),
        values={
            n: values_of(s) if together else s["value"].detach().unsqueeze(0)
            for n, s in sites.items()
        },
        sources=tuple(n for n, s in sites.items() if not is_delta(s["fn"])),
        indices=traces.indices,
        leaves=traces.leaves,
        shares=next((s["infer"]["shares"] for s in sites.values() if "shares" in s["infer"]), None),
    )


def values_of(site: Mapping[str, Any]) -> Tensor:  # (particles, *site_shape)
    """The values of a latent site in a run of many particles, without the padding of the batch."""
    value = site["value"].detach()
    inner = max((-d for d in plates_of(site).values()), default=0) + site["fn"].event_dim
    return value.reshape((-1, *value.shape[value.dim() - inner :]))


def independent_sites(
    pair: Pair, layout: Layout, varying: Callable[[], frozenset[str]]
) -> frozenset[str]:
    """The observed sites that depend on no latent value; found out once.

    Args:
        pair: what is asked about.
        layout: where it is remembered.
        varying: names of those that are not the same for all particles of a run, whatever was
            inferred: they are never called independent again.
    """
    if layout.independent is None:
        with torch.no_grad():
            layout.independent = find_independent(pair)
    if layout.independent and not layout.settled:
        layout.independent -= varying()
    return layout.independent
