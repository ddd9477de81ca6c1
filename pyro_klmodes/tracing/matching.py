"""Every latent site of the guide has its counterpart in the model, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_klmodes.errors import ModelGuideMismatch, UnsupportedStructure
from pyro_klmodes.tracing.handlers import is_delta, is_latent
from pyro_klmodes.tracing.runs import Traces

__all__ = ["check_sites", "is_enumerated"]


def is_enumerated(name: str, site: Mapping[str, Any], traces: Traces) -> bool:
    """Whether a model site is to be summed out."""
    return (
        is_latent(site)
        and name not in traces.guide
        and site["infer"].get("enumerate") == "parallel"
    )


def check_sites(traces: Traces) -> None:
    """Compare the latent sites of a run.

    Raises:
        ModelGuideMismatch: naming the site that only one side has.
        UnsupportedStructure: if a guide site is marked for enumeration.
    """
    guide = {n: s for n, s in traces.guide.nodes.items() if is_latent(s)}
    model = traces.model.nodes
    for name, site in guide.items():
        if site["infer"].get("enumerate") is not None:
            raise UnsupportedStructure(
                f"guide site '{name}' is marked for enumeration. Weights would count it twice: "
                "sample it in the guide (the default estimator then uses the score function), or "
                "leave it out of the guide and enumerate it in the model."
            )
        if site["infer"].get("is_auxiliary", False):
            continue
        if name not in model:
            raise ModelGuideMismatch(
                f"guide site '{name}' is not in the model. Remove it, rename it, or mark it with "
                "infer={'is_auxiliary': True} if it is meant to be auxiliary; if the model samples "
                "it for some data only, sample it always and mask it (poutine.mask)."
            )
        if not is_latent(model[name]):
            raise ModelGuideMismatch(
                f"guide site '{name}' is observed in the model. Remove it from the guide."
            )
    for name, site in model.items():
        missing = site["type"] == "sample" and is_latent(site) and name not in guide
        if missing and not is_delta(site["fn"]) and not is_enumerated(name, site, traces):
            raise ModelGuideMismatch(
                f"model site '{name}' is latent but not in the guide. Add it to the guide, or, if "
                "it is discrete, sum it out with infer={'enumerate': 'parallel'}; if the model "
                "samples it for some data only, sample it always and mask it (poutine.mask)."
            )
