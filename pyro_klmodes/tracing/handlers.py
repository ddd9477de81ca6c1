"""The messengers that decide what a run of a model or guide may draw, and what carries a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.plates import PARTICLES

__all__ = [
    "Cut",
    "CutDraws",
    "Enumerate",
    "FixValues",
    "InnerParticles",
    "SampledInGuide",
    "is_delta",
    "is_latent",
]


class Cut(Enum):
    """Where the graph between the guide's parameters and the log-weights is cut."""

    #: not at all: reparameterised draws carry gradients of the guide's parameters
    NONE = "none"
    #: draws are data: no gradient passes through a latent value
    DRAWS = "draws"
    #: draws become leaves, and model and guide are evaluated at them
    LEAVES = "leaves"
    #: only the model is evaluated at leaves; the guide's density keeps its graph
    MODEL = "model"


def is_delta(fn: Any) -> bool:
    """Whether a distribution is a point mass, however wrapped."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def is_latent(site: Mapping[str, Any]) -> bool:
    """Whether a trace node is an unobserved sample site other than the indices of a plate."""
    return site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)


class CutDraws(Messenger):
    """Detach every latent value as it is drawn, so that everything downstream sees constants.

    Pyro post-processes the outermost messenger first: enter this *outside* of the trace, which
    then records the detached values.
    """

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if is_latent(msg) and isinstance(msg["value"], Tensor):
            msg["value"] = msg["value"].detach()


class FixValues(Messenger):
    """Give latent sites and plate indices the values of an earlier run.

    Raises:
        UnsupportedStructure: if a plate was given indices by the user and others are to be fixed.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] not in self.values or msg["is_observed"]:
            return
        value = self.values[msg["name"]]
        if site_is_subsample(msg) and msg["value"] is not None:
            given = torch.as_tensor(msg["value"])
            same = given is value  # which takes no look at the numbers
            if not same and (given.shape != value.shape or not torch.equal(given, value.to(given))):
                raise UnsupportedStructure(
                    f"plate '{msg['name']}': it was given subsample indices, but the guide draws "
                    "its own, so guide and data would not match. Pass the same indices in the "
                    "guide; for Pyro's autoguides: create_plates=lambda ...: "
                    f"pyro.plate('{msg['name']}', size, subsample=indices)."
                )
        msg["value"] = value
        msg["done"] = True


class Enumerate(EnumMessenger):
    """Pyro's parallel enumeration, also under ``torch.func.vmap``, where values have no data."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["value"], Tensor):
            msg = {**msg, "value": _ShapeOnly(msg["value"].shape)}
        super()._pyro_post_sample(msg)


class _ShapeOnly:
    """What Pyro asks of the value of a site: ``value.data.shape`` and ``value.dim()``."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape

    @property
    def data(self) -> _ShapeOnly:
        return self

    def dim(self) -> int:
        return len(self.shape)


class SampledInGuide(Messenger):
    """Take the mark for enumeration off the sites whose values come from the guide.

    Enter it inside the enumerating messenger.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names and "enumerate" in msg["infer"]:
            msg["infer"] = {k: v for k, v in msg["infer"].items() if k != "enumerate"}


class InnerParticles(Messenger):
    """A second plate of particles, around the sites inside of one of the user's plates only.

    Enter it outside of everything else: the sites' own plates must be on their stacks already.
    """

    def __init__(self, plate: str, size: int, dim: int) -> None:
        super().__init__()
        self.plate = plate
        self.frame = CondIndepStackFrame(PARTICLES, dim, size, 0, size)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if any(f.name == self.plate for f in msg["cond_indep_stack"]):
            msg["cond_indep_stack"] = (self.frame, *msg["cond_indep_stack"])
            BroadcastMessenger._pyro_sample(msg)
