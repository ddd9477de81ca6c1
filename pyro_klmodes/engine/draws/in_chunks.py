"""Run a model at the values of many particles through its graph, if that gives what Pyro gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_klmodes.engine.draws.model_graph import ModelGraph
from pyro_klmodes.engine.draws.term_sums import (
    plates_around_latents,
    refuse_shared_masks,
    term_sums,
)
from pyro_klmodes.tracing.broadcasting import rounding
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Particles, Together
from pyro_klmodes.tracing.runs import ModelRun, Pair, RunsModel
from pyro_klmodes.tracing.sampling import model_runner
from pyro_klmodes.tracing.terms import scored_sites

__all__ = ["through_graph"]

#: numbers that a chunk may hold in the sites of model and guide: some such tensors fit into a cache
_NUMBERS = 2**18
#: with fewer particles in a chunk the calls of the operations take longer than the operations
_FEWEST_PARTICLES = 16
#: with more sites the numbers of a chunk are spread over so many operations that the same holds
_MOST_SITES = 32
#: with fewer blocks it takes longer to write the model down than it saves
_FEWEST_BLOCKS = 12


def through_graph(layout: Layout, blocks: Sequence[int]) -> RunsModel | None:
    """How to run a model for many blocks of particles, None for as ever.

    The first block is run as ever. The model is then written down as a graph, which is held against
    that block. Where it cannot be written down, gives something else, or would not pay, all blocks
    are run as ever; and so is a block with a log-probability that is not finite.

    Args:
        layout: of the pair.
        blocks: how many particles each of them has.
    """
    chunk = _NUMBERS // layout.numbers
    few = len(blocks) < _FEWEST_BLOCKS or chunk < _FEWEST_PARTICLES
    return None if few or not layout.together else _ThroughGraph(layout, chunk)


class _ThroughGraph:
    """See ``through_graph``; for one model with one set of data and parameters.

    Args:
        layout: of the pair.
        chunk: how many particles the graph takes at a time.
    """

    def __init__(self, layout: Layout, chunk: int) -> None:
        self._layout, self._chunk = layout, chunk
        self._first: ModelRun | None = None  # with sums in the place of its terms
        self._graph: ModelGraph | None = None

    def __call__(
        self,
        pair: Pair,
        particles: Particles,
        values: Mapping[str, Tensor],
        guide: Trace,
        *,
        enumerated: bool,
    ) -> ModelRun:
        """Run the model."""
        if self._graph is not None and isinstance(particles, Together):
            found = self._through(self._graph, values, particles.count)
            if found is not None:
                return found
        run = model_runner(self._layout)(pair, particles, values, guide, enumerated=enumerated)
        if self._first is None and isinstance(particles, Together):
            self._first = run
            with suppress(Exception):  # whatever is not as it is for most models
                self._lift(pair, particles, values, guide, enumerated=enumerated)
        return run

    def _lift(
        self,
        pair: Pair,
        particles: Together,
        values: Mapping[str, Tensor],
        guide: Trace,
        *,
        enumerated: bool,
    ) -> None:
        """Write the model down, and keep the graph if it gives what the first run gave."""
        assert self._first is not None
        if len(scored_sites(self._first.trace)) > _MOST_SITES:
            return
        refuse_shared_masks(guide, self._first.trace)
        kept = plates_around_latents(guide)
        terms = term_sums(self._first, kept, particles.dim, enumerated=enumerated)
        graph = ModelGraph(pair, self._layout, values, guide, particles.count, self._chunk)
        if _agree(graph(values, particles.count), [term.log_prob for term in terms]):
            self._first, self._graph = replace(self._first, terms=terms), graph

    def _through(
        self, graph: ModelGraph, values: Mapping[str, Tensor], count: int
    ) -> ModelRun | None:
        """The first run with the sums of this one; None if one is not finite, or of few rows."""
        if self._first is None or count < self._chunk:
            return None
        found = graph(values, count)
        if not all(bool(x.isfinite().all()) for x in found):
            return None
        terms = zip(self._first.terms or (), found, strict=True)
        return replace(self._first, terms=[replace(term, log_prob=x) for term, x in terms])


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether tensors are the same up to rounding, element by element."""
    return len(found) == len(expected) and all(map(_close, found, expected))


def _close(found: Tensor, expected: Tensor) -> bool:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return False
    size = expected.abs()
    usual = size.nan_to_num(nan=0.0, posinf=0.0).median()
    close = (found - expected).abs() <= rounding(expected) * (size + usual)
    return bool((close | (found == expected) | (found.isnan() & expected.isnan())).all())
