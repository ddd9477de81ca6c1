"""Every site of a model: what kind it is, how large, and in which plates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.errors import UnsupportedStructure
from pyro_klmodes.tracing.computed import is_deterministic
from pyro_klmodes.tracing.prototype import indices_given
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["PlateAxis", "SiteInfo", "describe", "kind_of"]

Kind = Literal["latent", "enumerated", "observed", "deterministic", "factor"]


@dataclass(frozen=True)
class PlateAxis:
    """A vectorised plate around a site.

    Attributes:
        name: its name.
        dim: its (negative) batch dimension.
        size: its full size.
        batch: how many elements one run sees.
        given: whether those elements are the user's choice (``subsample=``).
    """

    name: str
    dim: int
    size: int
    batch: int
    given: bool = False


@dataclass(frozen=True)
class SiteInfo:
    """One site of a model.

    Attributes:
        name: its name.
        kind: "latent", "enumerated" (latent, and no value is at hand), "observed",
            "deterministic", or "factor".
        plates: its vectorised plates, leftmost first.
        event_dim: number of its event dimensions.
        batch_shape: of one run, subsampled plates with the size of their minibatch.
        event_shape: the rest of the shape of a value.
        ambiguous: whether a deterministic value has several axes that a plate may mean.
    """

    name: str
    kind: Kind
    plates: tuple[PlateAxis, ...]
    event_dim: int
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    ambiguous: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a value for the full data."""
        shape = list(self.batch_shape)
        for plate in self.plates:
            if len(shape) >= -plate.dim:
                shape[plate.dim] = plate.size
        return (*shape, *self.event_shape)

    @property
    def axes(self) -> dict[str, int]:
        """The axis of each plate in a value, counted from the right."""
        return {p.name: p.dim - self.event_dim for p in self.plates}


@same_random_state()
def describe(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    known: Collection[str] | None = None,
) -> dict[str, SiteInfo]:
    """Run a model once, hidden from outer handlers, and describe its sites in their order.

    Args:
        model: a Pyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        known: the latent sites whose values are at hand; the other discrete ones are summed out.
            None for those that are not marked for enumeration.

    Raises:
        UnsupportedStructure: if a subsampled plate is sequential: its sites come and go.
    """
    with poutine.block(), torch.no_grad():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    sites = {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }
    frames = {f.name: f for site in sites.values() for f in site["cond_indep_stack"]}
    parts = {n for n, f in frames.items() if f.full_size is not None and f.full_size != f.size}
    for name in sorted(parts):
        if not frames[name].vectorized:
            raise UnsupportedStructure(
                f"subsampled plate '{name}' is sequential, so the model has other sites in every "
                "run. Use `with pyro.plate(...)` instead of a loop over it, or the full data."
            )
    given = indices_given(model, parts, args, kwargs) if parts else {}
    return {name: _describe(site, given, known) for name, site in sites.items()}


def kind_of(site: Mapping[str, Any], known: Collection[str] | None) -> Kind:
    """What a sample site other than a plate's indices is there for."""
    if is_deterministic(site):
        return "deterministic"
    if site["is_observed"]:
        return "factor" if isinstance(site["fn"], dist.Unit) else "observed"
    if known is None:
        return "enumerated" if site["infer"].get("enumerate") == "parallel" else "latent"
    if site["name"] not in known and getattr(site["fn"], "has_enumerate_support", False):
        return "enumerated"
    return "latent"


def _describe(
    site: Mapping[str, Any], given: Mapping[str, Tensor], known: Collection[str] | None
) -> SiteInfo:
    kind = kind_of(site, known)
    frames = sorted((f for f in site["cond_indep_stack"] if f.vectorized), key=lambda f: f.dim)
    plates = tuple(
        PlateAxis(f.name, f.dim, f.size if f.full_size is None else f.full_size, f.size, name_in)
        for f, name_in in ((f, f.name in given) for f in frames)
    )
    if kind == "deterministic":
        shape = tuple(torch.as_tensor(site["value"]).shape)
        event_dim, ambiguous = _event_dim(shape, plates, site["fn"].event_dim)
        plates = tuple(p for p in plates if len(shape) - event_dim >= -p.dim)
    else:
        shape = tuple(site["fn"].shape())
        event_dim, ambiguous = site["fn"].event_dim, False
    cut = len(shape) - event_dim
    return SiteInfo(site["name"], kind, plates, event_dim, shape[:cut], shape[cut:], ambiguous)


def _event_dim(
    shape: tuple[int, ...], plates: tuple[PlateAxis, ...], declared: int
) -> tuple[int, bool]:
    """Where the event of a deterministic value begins, and whether that was a guess.

    Pyro takes the whole value as one event unless it is told otherwise; the plates around it tell
    by their sizes.
    """
    if declared < len(shape) or not plates:
        return declared, False
    fits = [
        e
        for e in range(len(shape))
        if all(
            len(shape) - e >= -p.dim and shape[len(shape) - e + p.dim] == p.batch for p in plates
        )
    ]
    if not fits:
        return declared, False
    return fits[0], len(fits) > 1
