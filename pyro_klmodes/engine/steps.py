"""Compiled steps: loss and gradients, or a whole run of steps with the optimizer inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_klmodes.engine.denormals import flushed
from pyro_klmodes.engine.lift import Lifted
from pyro_klmodes.engine.packing import Packing
from pyro_klmodes.engine.split_step import SplitStep
from pyro_klmodes.engine.updates import Rule
from pyro_klmodes.engine.verify import Gradient
from pyro_klmodes.tracing.randomness import same_random_state

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

        def step(*flat: Tensor) -> tuple[Tensor, ...]:
            p, m, v = (flat[i * count : (i + 1) * count] for i in range(3))
            factors, settings, *rest = flat[3 * count :]
            others = iter(rest[: len(still)])
            now = iter(self._packing.unpack(p))
            params = [next(now) if moves else next(others) for moves in self._moved]
            loss, *found = lifted.graph(*params, settings, *rest[len(still) :])
            gradients = self._packing.pack(found)
            moved = [rule(*each, factors) for each in zip(p, gradients, m, v, strict=True)]
            return (loss, *(x for kind in zip(*moved, strict=True) for x in kind))

        # each input a tensor of its own: tracing knows inputs by which tensor they are
        zeros = [torch.zeros_like(x) for _ in range(2) for x in state]
        changing = [*state, *zeros, rule.factors(0, 1, 0.1)[0], lifted.example, *still]
        data = [x.detach() for x in lifted.arguments.tensors]
        with torch.no_grad(), same_random_state():
            graph = make_fx(step)(*changing, *data)
        # results are the loss and the new state, which takes the place of the old one
        in_place = {1 + i: i for i in range(3 * count)}
        self.split = SplitStep(graph, changing, data, in_place)

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
            results = self.split.loop(
                [*state, factors[0], settings[0], *still],
                {first: factors.unbind(0), first + 1: settings.unbind(0)},
                data,
                len(factors),
            )
        count = first // 3
        p, m, v = (self._packing.unpack(state[i * count : (i + 1) * count]) for i in range(3))
        return torch.stack([loss for (loss,) in results]), p, list(zip(m, v, strict=True))

    def _sorted(self, parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Those that move, and the others."""
        both = list(zip(parameters, self._moved, strict=True))
        return [p.detach() for p, m in both if m], [p.detach() for p, m in both if not m]
