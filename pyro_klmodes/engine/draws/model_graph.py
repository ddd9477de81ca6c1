"""The terms of a model as a graph of the values of a few particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.backends import build
from pyro_klmodes.engine.causes import cause_of
from pyro_klmodes.engine.draws.rows import chunked, joined, particle_axes
from pyro_klmodes.engine.draws.term_sums import plates_around_latents, term_sums
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.escapes import NoEscape
from pyro_klmodes.engine.graphs.aliases import effects
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.passes.factor_sums import factor_sums
from pyro_klmodes.engine.graphs.passes.reuse_memory import reuse_memory
from pyro_klmodes.engine.graphs.record import record
from pyro_klmodes.engine.graphs.split import drop_unused_inputs, random_nodes
from pyro_klmodes.engine.soundness import pinned_inputs, poison_failures
from pyro_klmodes.engine.unvalidated import Unvalidated
from pyro_klmodes.tracing.layout import Layout
from pyro_klmodes.tracing.particles import Together
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair
from pyro_klmodes.tracing.sampling import model_runner

__all__ = ["ModelGraph"]


class ModelGraph:
    """The log-probabilities of a model's terms, see ``term_sums``, for a chunk of particles a time.

    What a chunk needs fits into the cache of a processor, where memory for all particles at once
    does not: that is where the time goes when many are drawn.

    Args:
        pair: the model is written down, with the data, parameters and minibatch that it has now.
        layout: its structure.
        values: of the guide's sites for at least as many particles as a chunk has, and indices of
            plates.
        guide: the trace that they are of.
        count: how many particles they are for.
        chunk: how many particles the graph takes at a time.

    Raises:
        CannotLift: if values decide what is computed, or the model draws random numbers or changes
            what it reads.
        CompileFailed: if the graph does not run.
    """

    def __init__(
        self,
        pair: Pair,
        layout: Layout,
        values: Mapping[str, Tensor],
        guide: Trace,
        count: int,
        chunk: int,
    ) -> None:
        few = Together(chunk, layout.nesting)
        axes = particle_axes(guide, layout.nesting, count)
        examples = [chunked(values[n], axis, count, chunk)[0].clone() for n, axis in axes.items()]
        kept = plates_around_latents(guide)
        enumerated = bool(layout.enumerated)

        def terms(*given: Tensor) -> tuple[Tensor, ...]:
            here = {**values, **dict(zip(axes, given, strict=True))}
            with Unvalidated(), NoEscape():
                run = model_runner(layout)(pair, few, here, guide, enumerated=enumerated)
                found = term_sums(run, kept, few.dim, enumerated=enumerated)
            return tuple(term.log_prob for term in found)

        with same_random_state(), poutine.block(), torch.no_grad():
            graph = _sound(_recorded(terms, examples), examples)
            graph, used = drop_unused_inputs(factor_sums(clean(graph, examples)))
            self._program = build(reuse_memory(graph), [examples[i] for i in used], "graph")
        if not used:
            raise CannotLift("no term depends on a latent value")
        self._axes = {n: axis for i, (n, axis) in enumerate(axes.items()) if i in used}
        self._chunk, self._particle_dim = chunk, few.dim

    def __call__(
        self,
        values: Mapping[str, Tensor],
        count: int,  # at least as many as a chunk has
    ) -> list[Tensor]:
        """The log-probabilities of the terms at the values of many particles."""
        inputs = [chunked(values[n], axis, count, self._chunk) for n, axis in self._axes.items()]
        found = [self._program(list(chunk)) for chunk in zip(*inputs, strict=True)]
        return [
            joined(chunks, self._particle_dim, count, self._chunk)
            for chunks in zip(*found, strict=True)
        ]


def _recorded(terms: Callable[..., Any], examples: Sequence[Tensor]) -> GraphModule:
    try:
        with pyro.validation_enabled(is_validate=False):
            return record(terms, examples)
    except CannotLift:
        raise
    except Exception as error:  # whatever a model does to a tensor that is being watched
        raise CannotLift(cause_of(error)) from error


def _sound(graph: GraphModule, examples: Sequence[Tensor]) -> GraphModule:
    """The graph, with NaN where an operation would raise an error."""
    if random_nodes(graph):
        raise CannotLift("the model draws random numbers of its own")
    if effects(graph.graph):
        raise CannotLift("the model changes a tensor in place that outlives its run")
    pinned_inputs(graph, range(len(examples), len(examples)), ())
    poison_failures(graph)
    drop_dead_code(graph)
    graph.recompile()
    return graph
