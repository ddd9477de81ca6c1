"""One run of a model as if nothing had been observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import NotDefined
from pyro_klmodes.tracing.computed import is_deterministic
from pyro_klmodes.tracing.handlers import is_latent
from pyro_klmodes.tracing.observe_anew import ObserveAnew
from pyro_klmodes.tracing.observed import Observed

__all__ = ["Simulated", "run_anew"]


@dataclass(frozen=True)
class Simulated:
    """What a model draws, latents from their prior and data given these.

    Attributes:
        trace: of the run.
        observed: what the model observes really, by site.
    """

    trace: Trace
    observed: Mapping[str, Observed]

    @property
    def latents(self) -> dict[str, dict[str, Any]]:
        """Trace nodes of the latent sites."""
        return {
            n: s
            for n, s in self.trace.nodes.items()
            if is_latent(s) and n not in self.observed and not is_deterministic(s)
        }


def run_anew(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Simulated:
    """Run a model, hidden from outer handlers and without gradients.

    Raises:
        NotDefined: if a site cannot be sampled.
    """
    anew = _Remembering()
    with poutine.block(), torch.no_grad(), poutine.trace() as tracer, anew:
        try:
            model(*args, **kwargs)
        except NotImplementedError as error:
            raise NotDefined(
                "a site of the model has a density but cannot be sampled, so that no data can be "
                f"simulated from it. ({error!r})"
            ) from error
    return Simulated(tracer.trace, anew.observed)


class _Remembering(ObserveAnew):
    """Draw observed sites, and remember what they observed."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: dict[str, Tensor] = {}
        self.observed: dict[str, Observed] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        before = dict(msg)
        super()._pyro_sample(msg)
        if before["is_observed"] and not msg["is_observed"]:
            self.observed[msg["name"]] = Observed.of(before, self.indices)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if site_is_subsample(msg):
            self.indices[msg["name"]] = torch.as_tensor(msg["value"])
