"""Compiled steps: loss and gradients, or a whole run of steps with the optimizer inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from pyro_klmodes.engine.denormals import flushed
from pyro_klmodes.engine.graphs.late import module_of
from pyro_klmodes.engine.graphs.parts import inline, placeholders
from pyro_klmodes.engine.graphs.record import record
from pyro_klmodes.engine.lift import Lifted
from pyro_klmodes.engine.packing import Packing
from pyro_klmodes.engine.reference import Gradient
from pyro_klmodes.engine.split_step import SplitStep
from pyro_klmodes.engine.updates import Rule

__all__ = ["GradientStep", "UpdateStep"]


class GradientStep:
    """Loss and gradients of a lifted step, without Pyro.

    Args:
        lifted: the step.
        parameters: examples of what it is called with.

    Attributes:
        split: the step in parts, interpreted at first.
    """

    def __init__(self, lifted: Lifted, parameters: Sequence[Tensor]) -> None:
        changing = [*parameters, lifted.example]
        self.split = SplitStep(lifted.graph, changing, lifted.arguments.tensors)
        self._lifted = lifted

    def __call__(
        self,
        parameters: Sequence[Tensor],
        settings: Tensor,  # (dials,)
        data: Sequence[Tensor],
    ) -> Gradient:
        """The loss, and the gradients in the order of the parameters."""
        with torch.no_grad():
            loss, *found = self.split.run([*parameters, settings], data)
        return loss, self._lifted.gradients(found)


class UpdateStep:
    """Steps with an optimizer inside, one after the other.

    Args:
        lifted: the step of the loss.
        parameters: examples of what it is called with.
        rule: how the optimizer moves what has a gradient.

    Attributes:
        split: the step in parts, interpreted at first.
    """

    def __init__(self, lifted: Lifted, parameters: Sequence[Tensor], rule: Rule) -> None:
        self._moved = lifted.moved
        moving, still = self._sorted(parameters)
        self._packing = Packing.of(moving)
        state = self._packing.pack(moving)
        count = len(state)

        # each input a tensor of its own: recording knows inputs by which tensor they are
        zeros = [torch.zeros_like(x) for _ in range(2) for x in state]
        changing = [*state, *zeros, rule.factors(0, 1, 0.1)[0], lifted.example, *still]
        data = [x.detach() for x in lifted.arguments.tensors]
        with torch.no_grad():
            graph = self._graph(lifted.graph, rule, [*state, *zeros], changing[3 * count], moving)
        # results are the loss and the new state, which takes the place of the old one
        in_place = {1 + i: i for i in range(3 * count)}
        self.split = SplitStep(graph, changing, data, in_place)

    def _graph(
        self,
        loss: GraphModule,
        rule: Rule,
        state: Sequence[Tensor],
        factors: Tensor,  # (2,)
        moving: Sequence[Tensor],
    ) -> GraphModule:
        """From state, factors, dials, parameters that stay and data to loss and new state."""
        count = len(state) // 3

        def unpack(*p: Tensor) -> tuple[Tensor, ...]:
            return tuple(self._packing.unpack(p))

        def move(*flat: Tensor) -> tuple[Tensor, ...]:
            p, m, v = (flat[i * count : (i + 1) * count] for i in range(3))
            gradients = self._packing.pack(flat[3 * count + 1 :])
            moved = [rule(*each, flat[3 * count]) for each in zip(p, gradients, m, v, strict=True)]
            return tuple(x for kind in zip(*moved, strict=True) for x in kind)

        graph, held = Graph(), dict[str, Any]()
        named = [graph.placeholder(f"state_{i}") for i in range(len(state))]
        now = iter(inline(graph, held, record(unpack, state[:count]), named[:count]))
        by = graph.placeholder("factors")
        dials = graph.placeholder("dials")
        params = [
            next(now) if m else graph.placeholder(f"still_{i}") for i, m in enumerate(self._moved)
        ]
        rest = [
            graph.placeholder(f"data_{i}") for i in range(len(placeholders(loss)) - len(params) - 1)
        ]
        value, *found = inline(graph, held, loss, [*params, dials, *rest])
        moved = record(move, [*state, factors, *(torch.zeros_like(x) for x in moving)])
        graph.output((value, *inline(graph, held, moved, [*named, by, *found])))
        return module_of(held, graph)

    def __call__(
        self,
        parameters: Sequence[Tensor],
        moments: Sequence[tuple[Tensor, Tensor]],  # of those that move
        settings: Tensor,  # (steps, dials)
        data: Sequence[Tensor],
        factors: Tensor,  # (steps, 2)
    ) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Take one step for every row of ``factors``.

        Returns:
            The losses, ``(steps,)``, and parameters and moments after the last step of those that
            move. Nothing is changed in place.
        """
        moving, still = self._sorted(parameters)
        groups = [moving, [m for m, _ in moments], [v for _, v in moments]]
        with torch.no_grad(), flushed():
            state = [x.clone() for group in groups for x in self._packing.pack(group)]
            first = len(state)
            (losses,) = self.split.loop(
                [*state, factors[0], settings[0], *still],
                {first: factors, first + 1: settings},
                data,
                len(factors),
            )
        count = first // 3
        p, m, v = (self._packing.unpack(state[i * count : (i + 1) * count]) for i in range(3))
        return losses, p, list(zip(m, v, strict=True))

    def _sorted(self, parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Those that move, and the others."""
        both = list(zip(parameters, self._moved, strict=True))
        return [p.detach() for p, m in both if m], [p.detach() for p, m in both if not m]
