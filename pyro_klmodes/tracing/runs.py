"""Run guide and model once: the only place that stacks handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from pyro import poutine
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_klmodes.tracing.handlers import (
    Cut,
    CutDraws,
    Enumerate,
    FixValues,
    SampledInGuide,
    is_delta,
    is_latent,
)
from pyro_klmodes.tracing.own_noise import KeepNoise
from pyro_klmodes.tracing.particles import Particles
from pyro_klmodes.tracing.plates import PARTICLES
from pyro_klmodes.tracing.terms import Term

__all__ = [
    "GuideRun",
    "ModelRun",
    "Pair",
    "RunsModel",
    "Traces",
    "run",
    "run_guide",
    "run_model",
    "shared_run",
]


@dataclass(frozen=True)
class Pair:
    """A model, a guide, and what both are called with."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messenger(self) -> GuideMessenger | None:
        """The guide as a messenger that runs the model itself, if it is of that kind."""
        bare = poutine.unwrap(self.guide)
        return bare if isinstance(bare, GuideMessenger) else None


@dataclass(frozen=True)
class Traces:
    """One run of a pair, before any density is computed.

    Where the model was mapped over the particles, its trace tells what is the same for all of them,
    and no values; its terms were computed on the way.
    """

    guide: Trace
    model: Trace
    indices: Mapping[str, Tensor]  # of the subsampled plates of both
    leaves: tuple[
        tuple[Tensor, Tensor], ...
    ] = ()  # draws with their graph, and the leaves for them
    terms: Sequence[Term] | None = None  # of a model that was mapped


@dataclass(frozen=True)
class ModelRun:
    """A run of a model, and its terms if they could be computed inside of it only."""

    trace: Trace
    terms: Sequence[Term] | None = None


class RunsModel(Protocol):
    """A way to run a model at the values of all particles."""

    def __call__(
        self,
        pair: Pair,
        particles: Particles,
        values: Mapping[str, Tensor],
        guide: Trace,
        *,
        enumerated: bool,
    ) -> ModelRun:
        """Run it; the guide's trace tells the plates of the values."""


def run(
    pair: Pair,
    *,
    particles: Particles,
    cut: Cut = Cut.NONE,
    fixed: Mapping[str, Tensor] | None = None,
    enumerated: bool = False,
    around: Messenger | None = None,
    by: RunsModel | None = None,
) -> Traces:
    """Draw from the guide and run the model at the draws.

    Args:
        pair: what to run.
        particles: how many, and which sites see them.
        cut: where the graph is cut.
        fixed: values that the guide's sites, and plates' indices in both, take instead of being
            drawn.
        enumerated: whether model sites marked for parallel enumeration are enumerated.
        around: entered outside of all other handlers.
        by: how the model is run; None for all particles in one run.
    """
    if around is not None:
        with around:
            return run(
                pair, particles=particles, cut=cut, fixed=fixed, enumerated=enumerated, by=by
            )
    by = by or shared_run
    first = run_guide(pair, particles, fixed or {}, detach=cut is Cut.DRAWS)
    drawn = {n: s["value"] for n, s in first.trace.nodes.items() if is_latent(s)}
    given = {**(fixed or {}), **first.indices}  # also for plates that only the model has
    if cut in (Cut.NONE, Cut.DRAWS):
        values = {**given, **drawn}
        return _traces(
            first,
            first.given or by(pair, particles, values, first.trace, enumerated=enumerated),
        )

    cut_at = drawn if cut is Cut.MODEL else _sources(first.trace)
    pairs = {n: (z, z.detach().requires_grad_()) for n, z in cut_at.items() if z.requires_grad}
    at = {**given, **cut_at, **{n: leaf for n, (_, leaf) in pairs.items()}}
    leaves = tuple(pairs.values())
    if cut is Cut.MODEL:
        model = by(pair, particles, at, first.trace, enumerated=enumerated)
        return _traces(first, model, leaves)

    second = run_guide(pair, particles, at, detach=False)
    at.update({n: s["value"] for n, s in second.trace.nodes.items() if is_latent(s)})
    model = second.given or by(pair, particles, at, second.trace, enumerated=enumerated)
    return _traces(second, model, leaves)


def _traces(
    guide: GuideRun, model: ModelRun, leaves: tuple[tuple[Tensor, Tensor], ...] = ()
) -> Traces:
    indices = {**_indices(model.trace), **guide.indices}
    return Traces(guide.trace, model.trace, indices, leaves, model.terms)


@dataclass(frozen=True)
class GuideRun:
    """One run of a guide alone."""

    trace: Trace
    indices: Mapping[str, Tensor]  # of the subsampled plates
    model: Trace | None  # where the guide is a messenger, which runs the model itself

    @property
    def given(self) -> ModelRun | None:
        """The run of the model that came with that of the guide."""
        return None if self.model is None else ModelRun(self.model)


def _sources(trace: Trace) -> dict[str, Tensor]:
    """The values in which randomness enters; point masses are recomputed from them."""
    return {n: s["value"] for n, s in trace.nodes.items() if is_latent(s) and not is_delta(s["fn"])}


def _indices(trace: Trace) -> dict[str, Tensor]:
    """Of the user's plates; that of the particles is always whole."""
    return {
        n: s["value"]
        for n, s in trace.nodes.items()
        if site_is_subsample(s) and not n.startswith(PARTICLES)
    }


def run_guide(
    pair: Pair, particles: Particles, fixed: Mapping[str, Tensor], *, detach: bool
) -> GuideRun:
    """Draw from the guide, with some values fixed, and detached draws if asked for."""
    with ExitStack() as stack:
        if fixed:
            stack.enter_context(FixValues(fixed))
        stack.enter_context(CutDraws() if detach else KeepNoise())
        tracer = stack.enter_context(poutine.trace())
        with particles.plate():
            pair.guide(*pair.args, **pair.kwargs)
    trace = tracer.get_trace()
    if pair.messenger is None:
        return GuideRun(trace, _indices(trace), model=None)
    model, guide = pair.messenger.get_traces()
    return GuideRun(guide, _indices(pair.messenger.trace), model)


def run_model(
    pair: Pair,
    particles: Particles,
    values: Mapping[str, Tensor],
    *,
    enumerated: bool,
) -> Trace:
    """Run the model at given latent values; sites without one are drawn from their prior."""
    with ExitStack() as stack:
        stack.enter_context(FixValues(values))
        tracer = stack.enter_context(poutine.trace())
        if enumerated:
            left = -1 - particles.nesting - particles.dims
            stack.enter_context(Enumerate(first_available_dim=left))
            stack.enter_context(SampledInGuide(values))
        with particles.plate():
            pair.model(*pair.args, **pair.kwargs)
    return tracer.get_trace()


def shared_run(
    pair: Pair,
    particles: Particles,
    values: Mapping[str, Tensor],
    guide: Trace,
    *,
    enumerated: bool,
) -> ModelRun:
    """All particles in one run."""
    return ModelRun(run_model(pair, particles, values, enumerated=enumerated))
