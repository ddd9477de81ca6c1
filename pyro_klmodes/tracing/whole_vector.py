"""Pyro's autoguides that pack all latents into one vector know neither minibatches nor masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, AutoGaussian, AutoStructured

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.obs_mask import replaced
from pyro_klmodes.tracing.plates import subsampled
from pyro_klmodes.tracing.runs import Traces

__all__ = ["refuse_whole_vectors"]


def refuse_whole_vectors(
    guide: Callable[..., Any],
    traces: Traces,
) -> None:
    """Refuse a guide whose one parameter vector would serve a different minibatch every step.

    And one whose density holds values that ``obs_mask`` replaces.

    Raises:
        UnsupportedStructure: naming guide, site and plate.
    """
    bare = poutine.unwrap(guide)
    parts = bare.modules() if isinstance(bare, torch.nn.Module) else ()
    for part in parts:
        if not isinstance(part, (AutoContinuous, AutoGaussian, AutoStructured)):
            continue
        for name in replaced(traces.model):
            if name in part.prototype_trace.nodes:
                raise UnsupportedStructure(
                    f"{type(part).__name__} has one density for all latents, also for those draws "
                    f"of site '{name}' that obs_mask replaces by what was observed, and nothing "
                    "keeps it from growing there. Use AutoNormal, a guide of pyro_klmodes.guides, "
                    "or poutine.mask in place of obs_mask."
                )
        for name, site in traces.model.nodes.items():
            if name in part.prototype_trace.nodes and is_latent(site):
                for plate in subsampled(site):
                    raise UnsupportedStructure(
                        f"{type(part).__name__} has one parameter vector as long as the minibatch "
                        f"of plate '{plate}', so site '{name}' of different data would share "
                        "parameters. Use AutoNormal, which keeps parameters for all data, or the "
                        f"full data in '{plate}'."
                    )
