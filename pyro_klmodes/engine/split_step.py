"""A step in parts: what data alone decide, what is drawn, and the rest, which is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.backends import Program, Tier, build, many_steps
from pyro_klmodes.engine.graphs.alike import join_many_terms, merge_alike
from pyro_klmodes.engine.graphs.clean import clean
from pyro_klmodes.engine.graphs.parts import placeholders
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.peak import peak_bytes
from pyro_klmodes.engine.graphs.split import split_invariant, split_random, used_inputs
from pyro_klmodes.engine.graphs.values import refresh
from pyro_klmodes.engine.noise import Noise
from pyro_klmodes.tracing.randomness import same_random_state

__all__ = ["SplitStep"]

_ATEN = torch.ops.aten


class SplitStep:
    """A graph with random numbers, ready to be run many times on the same data.

    It is interpreted until it is told to use something better.

    Args:
        graph: of inputs that change from step to step, and then data.
        changing: examples of the former.
        data: examples of the latter.
        in_place: ``{output: input}`` for results that take the place of inputs that change.

    Attributes:
        operations: how many are left in the part that is neither drawn nor decided by the data.
        peak_bytes: what its results take up at once, when it is interpreted.
        tier: what runs that part now.
        draws_follow: whether draws depend on what changes, as those of a Gamma guide do.
    """

    def __init__(
        self,
        graph: GraphModule,
        changing: Sequence[Tensor],
        data: Sequence[Tensor],
        in_place: Mapping[int, int] | None = None,
    ) -> None:
        inputs = [*changing, *data]
        prelude, body = split_random(clean(graph, inputs))
        self._noise = Noise.of(prelude)
        self._draw = build(prelude, inputs, "graph")
        self.draws_follow = any(i < len(changing) for i in used_inputs(prelude))
        with torch.no_grad(), same_random_state():
            draws = self.draws(changing, data)
        if self._noise is not None:
            _take_noise_joined(body, self._noise)
            refresh(body, [*inputs, *draws])
        body = _without_loops(body)
        parts = split_invariant(body, range(len(changing), len(inputs)))
        self._once = build(parts.once, data, "graph")
        with torch.no_grad():
            fixed = self._once(list(data))
        examples = [*inputs, *draws, *fixed]
        first = len(inputs) + len(draws)
        #: which of changing inputs, data, draws and what data decide the program takes
        self._taken = [*parts.kept, *range(first, len(examples))]
        self._examples = [examples[i] for i in self._taken]
        self._in_place = {o: self._taken.index(i) for o, i in (in_place or {}).items()}
        self._rest = clean(parts.body, self._examples)
        self.operations = sum(node.op == "call_function" for node in self._rest.graph.nodes)
        self.peak_bytes = peak_bytes(self._rest.graph)
        self.tier: Tier = "graph"
        self._run = self.program("graph")

    def program(self, tier: Tier) -> Program:
        """What runs the compiled part; may be called in another thread.

        Raises:
            NoCompiler, CompileFailed: if there is none.
        """
        return build(self._rest, self._examples, tier, in_place=self._in_place)

    def use(self, program: Program, tier: Tier) -> None:
        """From now on run a program that was made for it."""
        self._run, self.tier = program, tier

    def draws(self, changing: Sequence[Tensor], data: Sequence[Tensor]) -> list[Tensor]:
        """The random numbers of one step, as the program takes them."""
        if self._noise is not None:
            return self._noise.once()
        return self._draw([*changing, *data])

    def run(
        self,
        changing: Sequence[Tensor],
        data: Sequence[Tensor],
        draws: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """One step; random numbers are drawn unless they are given."""
        fixed = self._once(list(data))
        drawn = self.draws(changing, data) if draws is None else draws
        inputs = [*changing, *data, *drawn, *fixed]
        return self._run([inputs[i] for i in self._taken])

    def loop(
        self,
        changing: Sequence[Tensor],
        columns: Mapping[int, Tensor],
        data: Sequence[Tensor],
        count: int,
    ) -> list[Tensor]:  # each (count, *result)
        """Many steps, the state of which changes in place; what each of them returns.

        Args:
            changing: what changes, with the state among it.
            columns: by its position among ``changing``, what has another value in every step, in
                rows.
            data: of all steps.
            count: how many.
        """
        inputs = [*changing, *data]
        fixed = self._once(list(data))
        if self._noise is None:
            return self._step_by_step(inputs, columns, fixed, count)
        noise = self._noise.columns(count)
        template = [*inputs, *(column[0] for column in noise), *fixed]
        tables = {**columns, **dict(enumerate(noise, start=len(inputs)))}
        slots = {i: tables[place] for i, place in enumerate(self._taken) if place in tables}
        return many_steps(self._run, [template[i] for i in self._taken], slots, count)

    def _step_by_step(
        self,
        inputs: list[Tensor],
        columns: Mapping[int, Tensor],
        fixed: Sequence[Tensor],
        count: int,
    ) -> list[Tensor]:
        """Many steps with draws of another kind, which may follow the state."""
        rows = {place: column.unbind(0) for place, column in columns.items()}
        results = []
        for k in range(count):
            for place, column in rows.items():
                inputs[place] = column[k]
            given = [*inputs, *self._draw(inputs), *fixed]
            results.append(self._run([given[i] for i in self._taken]))
        return [torch.stack(found) for found in zip(*results, strict=True)]


def _without_loops(body: GraphModule) -> GraphModule:
    """The same with what is done again and again done at once."""
    merged = merge_alike(body)
    return body if merged is body else drop_dead_code(join_many_terms(drop_dead_code(merged)))


def _take_noise_joined(body: GraphModule, noise: Noise) -> None:
    """Have the body take the results of the generator's calls in the place of the draws."""
    graph = body.graph
    inputs = placeholders(body)
    draws = inputs[len(inputs) - len(noise.shapes) :]
    joined = []
    last = inputs[-1]
    for i in range(len(noise.fills)):
        with graph.inserting_after(last):
            last = graph.placeholder(f"noise_{i}")
        joined.append(last)
    for draw, (group, start, stop), shape in zip(draws, noise.places(), noise.shapes, strict=True):
        with graph.inserting_after(last):
            part = graph.call_function(_ATEN.slice.Tensor, (joined[group], 0, start, stop))
        with graph.inserting_after(part):
            last = graph.call_function(_ATEN.view.default, (part, list(shape)))
        draw.replace_all_uses_with(last)
        graph.erase_node(draw)
    body.recompile()
