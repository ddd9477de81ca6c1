"""Why latents in plates have one joint weight: as the guide has it, or as the model is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.runs import Traces
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["JointWeight", "why_joint"]

GROWS = "Its variance grows with the size of the plates"
MODEL_HAS_IT = f"{GROWS}: with many elements prefer ReverseKL."


class JointWeight(NamedTuple):
    """What is to be said about a joint weight.

    Attributes:
        problem: what another guide, or another way to write the plates, would mend.
        remark: what the model is like, whatever the guide.
    """

    problem: str = ""
    remark: str = ""


def why_joint(traces: Traces, layout: Layout) -> JointWeight:
    """Say why the weights of latents in plates are joint, nothing where no latent is in a plate.

    A weight can be cut along a plate if all that depends on a latent value is inside of it: in the
    model, latents and data, and in the guide, every site.
    """
    model = scored_sites(traces.model)
    latent = [s for s in model if is_latent(s) and s["name"] not in layout.enumerated]
    plates = sorted(set().union(*(_plates(s) for s in latent)))
    if not plates:
        return JointWeight()
    about = f"latent sites in plate(s) {plates} share one joint weight"
    common = set.intersection(*(_plates(s) for s in latent))
    if not common:
        outside = [s for s in latent if not set(plates) <= _plates(s)]
        return JointWeight(
            remark=f"{about}, as no plate holds all latents: {_names(outside)} "
            f"{_lie(outside)} outside. {MODEL_HAS_IT}"
        )
    fixed = layout.independent or frozenset()
    rest = [s for s in model if s not in latent and s["name"] not in fixed]
    joining = [s for s in rest if not common <= _plates(s)]
    if joining:
        return JointWeight(
            remark=f"{about}, as {_names(joining)} outside may depend on all of them. "
            f"{MODEL_HAS_IT}"
        )
    if not any(f.vectorized for s in latent for f in s["cond_indep_stack"] if f.name in common):
        return JointWeight(
            problem=f"latent sites in sequential plate(s) {sorted(common)} share one joint weight. "
            f"{GROWS}. Write them as vectorised plates (`with pyro.plate(...)`) in model and "
            "guide, or use ReverseKL."
        )
    return JointWeight(
        problem=f"{about}, as {_of_guide(scored_sites(traces.guide), common)}. {GROWS}. Use a "
        "guide with a site in the plate for every latent, or ReverseKL."
    )


def _plates(site: Mapping[str, Any]) -> set[str]:
    """Names of the plates around a site, sequential ones too."""
    return {f.name for f in site["cond_indep_stack"]}


def _of_guide(sites: Iterable[Mapping[str, Any]], common: set[str]) -> str:
    """What in the guide stands in the way."""
    outside = [s for s in sites if not common <= _plates(s)]
    if outside:
        return f"{_names(outside)} of the guide {_lie(outside)} outside"
    return "the guide draws their elements together"


def _names(sites: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"'{s['name']}'" for s in sites)


def _lie(sites: Sequence[Mapping[str, Any]]) -> str:
    return "lies" if len(sites) == 1 else "lie"
