"""From values of the latent sites back to what a guide really draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import biject_to

from pyro_klmodes.errors import InvalidArgument, NoDensity
from pyro_klmodes.tracing.handlers import is_delta, is_latent
from pyro_klmodes.tracing.particles import Single
from pyro_klmodes.tracing.plates import depth, subsampled
from pyro_klmodes.tracing.runs import Pair, run_guide
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["GuideInverse", "name_of"]


class GuideInverse:
    """Turns values of a guide's latent sites into values of the sites it really draws.

    Which auxiliary site feeds which latents is read off a run of the guide: the auxiliary value
    must equal the unconstrained values of the point masses behind it, joined along the last
    dimension. Nothing is assumed about the guide's class.
    """

    def __init__(
        self,
        trace: Trace,
        parts: Mapping[str, list[tuple[str, Any]]],
        supports: Mapping[str, Any],
    ) -> None:
        self.trace = trace
        self.parts = parts
        self.supports = supports
        self.nesting = depth(scored_sites(trace))

    @classmethod
    def of(
        cls,
        pair: Pair,
        supports: Mapping[str, Any] | None = None,
        *,
        settled: bool = False,
    ) -> GuideInverse:
        """Read the structure of a guide off one run.

        Args:
            pair: its guide.
            supports: of the latent sites; of an autoguide they are known.
            settled: whether this was done before, so that no value need be looked at.

        Raises:
            NoDensity: if point masses of the guide cannot be traced back to what it draws.
        """
        with poutine.block(), torch.no_grad():
            trace = run_guide(pair, Single(), {}, detach=False).trace
        supports = {**_prototype_supports(pair.guide), **(supports or {})}
        parts: dict[str, list[tuple[str, Any]]] = {}
        source: str | None = None
        for name, site in trace.nodes.items():
            if not is_latent(site):
                continue
            if not is_delta(site["fn"]):
                source = name
                continue
            if source is None or name not in supports:
                raise NoDensity(_no_density(pair.guide, name))
            parts.setdefault(source, []).append((name, biject_to(supports[name])))
        inverse = cls(trace, parts, supports)
        if settled:
            return inverse
        for source, targets in parts.items():
            drawn = trace.nodes[source]["value"]
            try:
                found = inverse._join(source, {n: trace.nodes[n]["value"] for n, _ in targets}, ())
            except RuntimeError:  # the sizes do not add up
                found = drawn.new_full((), float("nan"))
            if not torch.allclose(found, drawn, rtol=1e-3, atol=1e-3):
                raise NoDensity(_no_density(pair.guide, targets[0][0]))
        return inverse

    def undetermined(self, values: Mapping[str, Tensor]) -> list[str]:
        """Sites the guide draws whose value does not follow from the given ones."""
        return [
            n
            for n, s in self.trace.nodes.items()
            if is_latent(s) and not is_delta(s["fn"]) and n not in values and n not in self.parts
        ]

    def leading(self, values: Mapping[str, Tensor]) -> int | None:
        """The number K of values per site, None for single values; checks names and shapes."""
        targets = {name for found in self.parts.values() for name, _ in found}
        for name in [*self.undetermined(values), *(targets - set(values))]:
            raise InvalidArgument(f"values has no entry for latent site '{name}'.")
        counts: dict[str, int | None] = {}
        for name, site in self.trace.nodes.items():
            if not is_latent(site) or name not in values:
                continue
            value, shape = values[name], site["value"].shape
            if tuple(value.shape) == tuple(shape):
                counts[name] = None
            elif value.dim() == len(shape) + 1 and value.shape[1:] == shape:
                counts[name] = value.shape[0]
            else:
                raise InvalidArgument(
                    f"the value of site '{name}' has shape {tuple(value.shape)}; the guide's is "
                    f"{tuple(shape)}, possibly with one more leading dimension."
                )
        for name in targets:
            if not bool(self.supports[name].check(values[name]).all()):
                raise InvalidArgument(
                    f"the value of site '{name}' lies outside of its support, {self.supports[name]}"
                    ": the guide's density is zero there."
                )
        for site in scored_sites(self.trace):
            for plate in subsampled(site):
                if plate not in values:
                    raise InvalidArgument(
                        f"plate '{plate}' is subsampled: pass the indices that the values belong "
                        f"to as values['{plate}']."
                    )
        if len(set(counts.values())) > 1:
            raise InvalidArgument(f"some values have a leading dimension and some not: {counts}.")
        return next(iter(counts.values()), None)

    def __call__(
        self,
        values: Mapping[str, Tensor],
        count: int | None,
        nesting: int,
    ) -> dict[str, Tensor]:
        """Values for the sites the guide draws, laid out for a run with ``count`` particles."""
        lead = () if count is None else (count,)
        at: dict[str, Tensor] = {}
        for name, site in self.trace.nodes.items():
            if site["type"] != "sample" or site["is_observed"] or name not in values:
                continue
            if not is_latent(site):
                at[name] = values[name]
            elif not is_delta(site["fn"]):
                at[name] = self._laid_out(name, values[name], count, nesting)
        for source in self.parts:
            joined = self._join(source, values, lead)
            at[source] = self._laid_out(source, joined, count, nesting)
        return at

    def _join(self, source: str, values: Mapping[str, Tensor], lead: tuple[int, ...]) -> Tensor:
        """The auxiliary value that transforms into given latents, ``(*lead, *source_shape)``."""
        site = self.trace.nodes[source]
        shape = tuple(site["value"].shape)
        batch = shape[: len(shape) - site["fn"].event_dim]
        pieces = [
            transform.inv(values[name]).reshape((*lead, *batch, -1))
            for name, transform in self.parts[source]
        ]
        return torch.cat(pieces, -1).reshape((*lead, *shape))

    def _laid_out(self, name: str, value: Tensor, count: int | None, nesting: int) -> Tensor:
        """Insert the batch dimensions between the particles and the site's own."""
        if count is None:
            return value.view_as(value)  # a new object, or flows would find stale values cached
        site = self.trace.nodes[name]
        shape = tuple(site["value"].shape)
        missing = nesting - (len(shape) - site["fn"].event_dim)
        return value.reshape((count, *(1,) * missing, *shape))


def _prototype_supports(guide: Callable[..., Any]) -> dict[str, Any]:
    """Supports of the model's sites as an autoguide has recorded them."""
    bare = poutine.unwrap(guide)
    trace = getattr(bare, "prototype_trace", None)
    if trace is None and isinstance(bare, AutoGuide):
        return {}
    nodes = trace.nodes if trace is not None else {}
    return {n: s["fn"].support for n, s in nodes.items() if s and is_latent(s)}


def _no_density(guide: Callable[..., Any], site: str) -> str:
    return (
        f"guide {name_of(guide)} has no density at given values: the point mass at site '{site}' "
        "is not the transform of what the guide draws. Use a guide that samples each latent from a "
        "distribution (AutoNormal, AutoMultivariateNormal, a flow with an inverse)."
    )


def name_of(guide: Callable[..., Any]) -> str:
    """What to call a guide in a message."""
    bare = poutine.unwrap(guide)
    return getattr(bare, "__name__", type(bare).__name__)
