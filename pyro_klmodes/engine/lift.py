"""The step of a loss as one graph: run once while every tensor operation is written down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.fx import GraphModule

from pyro_klmodes.engine.calls import Arguments
from pyro_klmodes.engine.causes import cause_of, place_of
from pyro_klmodes.engine.errors import CannotLift
from pyro_klmodes.engine.escapes import NoEscape
from pyro_klmodes.engine.graphs.passes.dead_code import drop_dead_code
from pyro_klmodes.engine.graphs.record import record
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.soundness import (
    Constant,
    Pinned,
    constants_of,
    pinned_inputs,
    poison_failures,
)
from pyro_klmodes.engine.unvalidated import Unvalidated
from pyro_klmodes.losses import DivergenceLoss
from pyro_klmodes.tracing.allowed import CollectAllowed
from pyro_klmodes.tracing.randomness import same_random_state
from pyro_klmodes.tracing.runs import Pair

__all__ = ["Lifted", "lift"]


@dataclass(frozen=True)
class Lifted:
    """A step as a graph of tensor operations, in which nothing of Pyro is left.

    Attributes:
        graph: takes the parameters, the dials and the tensors among the arguments, draws the random
            numbers that the step would draw, and returns the loss and the gradients of those
            parameters that have one.
        moved: for each parameter, whether it has a gradient.
        arguments: what it was lifted with.
        dials: names of the numbers that change from step to step; one vector of them is an input.
        constants: the tensors that it holds.
        pinned: those of the data that decide shapes.
    """

    graph: GraphModule
    moved: tuple[bool, ...]
    arguments: Arguments
    dials: tuple[str, ...]
    constants: tuple[Constant, ...] = ()
    pinned: tuple[Pinned, ...] = ()

    def why_stale(self, data: Sequence[Tensor]) -> str | None:
        """Why it does not hold any more, or not for these data; None if it does.

        Args:
            data: the tensors among the arguments, of the shapes that it was lifted with.
        """
        for constant in self.constants:
            if constant.why_stale is not None:
                return constant.why_stale
        for position, value, why in self.pinned:
            if not torch.equal(data[position], value):
                return f"{why}, which differ between batches"
        return None

    @property
    def operations(self) -> int:
        """How many there are in a step."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)

    @property
    def example(self) -> Tensor:  # (dials,)
        """Something that dials may show."""
        return torch.ones(len(self.dials), dtype=torch.float64)

    def settings(self, loss: DivergenceLoss, step: int, count: int = 1) -> Tensor:  # (count, dials)
        """What the dials show from a step on."""
        if not self.dials:
            return torch.empty(count, 0, dtype=torch.float64)
        rows = [list(loss.dials(step + i).values()) for i in range(count)]
        return torch.tensor(rows, dtype=torch.float64).reshape(count, len(self.dials))

    def gradients(self, found: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Those that the graph returns, in the order of the parameters."""
        rest = iter(found)
        return tuple(next(rest) if moved else None for moved in self.moved)


def lift(pair: Pair, loss: DivergenceLoss, parameters: Parameters) -> Lifted:
    """Write down one step of a loss.

    The pair must have been run with this loss before, so that its parameters exist and its
    structure is known. Random states, parameters and buffers are as they were at the end.

    Args:
        pair: model, guide and arguments.
        loss: any loss whose step is the same function every time.
        parameters: what is learned.

    Raises:
        CannotLift: if values decide what is computed, or the step changes anything but the
            gradients.
    """
    reason = loss.why_not_static()
    if reason is not None:
        raise CannotLift(reason)
    arguments = Arguments.of(pair.args, pair.kwargs)
    _check_arguments(arguments, parameters)
    moved: list[bool] = []
    validates = pyro.distributions.is_validation_enabled()

    count = len(parameters.leaves)
    dials = loss.dials(loss.step)

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        params, settings, data = inputs[:count], inputs[count], inputs[count + 1 :]
        leaves = [p.detach().requires_grad_(leaf.requires_grad) for p, leaf in _pairs(params)]
        collected = CollectAllowed()
        checks = collected if validates else nullcontext()
        with parameters.replaced_by(leaves), Unvalidated(), checks, NoEscape():
            args, kwargs = arguments.call_with(data)
            shown = {name: settings[i] for i, name in enumerate(dials)}
            value = loss.static_loss(Pair(pair.model, pair.guide, args, kwargs), shown)
            learned = [leaf for leaf in leaves if leaf.requires_grad]
            found: Iterator[Tensor | None] = iter([None] * len(learned))
            if value.requires_grad:
                found = iter(torch.autograd.grad(value, learned, allow_unused=True))
        if collected.found:  # eager code would raise an error
            good = reduce(torch.bitwise_and, [each.all() for each in collected.found])
            value = torch.where(good, value, math.nan)
        gradients = [next(found) if leaf.requires_grad else None for leaf in leaves]
        moved[:] = [g is not None for g in gradients]
        return (value.detach(), *[g for g in gradients if g is not None])

    def _pairs(params: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(params, parameters.leaves, strict=True)

    settings = torch.tensor(list(dials.values()), dtype=torch.float64)
    inputs = [x.detach() for x in (*parameters.leaves, settings, *arguments.tensors)]
    with same_random_state(), poutine.block(), parameters.unchanged(), torch.enable_grad():
        try:
            with pyro.validation_enabled(is_validate=False):
                graph = record(step, inputs)
        except CannotLift as error:
            raise CannotLift(f"{error}{place_of(error)}") from error
        except Exception as error:  # whatever a model does to a tensor that is being watched
            raise CannotLift(cause_of(error)) from error
    constants = constants_of(graph, parameters)
    pinned = pinned_inputs(graph, range(count + 1, len(inputs)), arguments.tensors)
    poison_failures(graph)
    drop_dead_code(graph)
    graph.recompile()
    return Lifted(graph, tuple(moved), arguments, tuple(dials), constants, pinned)


def _check_arguments(arguments: Arguments, parameters: Parameters) -> None:
    if arguments.why_not_plain is not None:
        raise CannotLift(arguments.why_not_plain)
    for name, x in arguments.named_tensors.items():
        at = parameters.position(x)
        if at is not None:
            raise CannotLift(f"{name} shares its memory with parameter '{parameters.names[at]}'")
