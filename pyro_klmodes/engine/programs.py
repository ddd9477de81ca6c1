"""The programs made of one lifted step, each held against eager code before it is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pyro_klmodes.engine.backends import Program
from pyro_klmodes.engine.choose import Plan
from pyro_klmodes.engine.explanation import Explanation
from pyro_klmodes.engine.lift import Lifted
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.reference import Gradient, Point, Reference
from pyro_klmodes.engine.split_step import SplitStep
from pyro_klmodes.engine.steps import GradientStep, UpdateStep
from pyro_klmodes.engine.updates import Rule
from pyro_klmodes.engine.verify import reordered, same_operations, verify
from pyro_klmodes.errors import KLModesError
from pyro_klmodes.losses import DivergenceLoss

__all__ = ["Programs"]

_Check = Callable[[], None]


class Programs:
    """What runs a lifted step: loss and gradients, and steps of optimizers.

    The graph itself is compared with eager code at once.

    Args:
        lifted: the step.
        loss: what is minimised; it knows the number of the step.
        parameters: what is learned.
        reference: what eager code gives.
        plan: what runs the steps, and since when.
        explanation: what is told of it.
        warn: tells the user that something cannot be had.

    Raises:
        CannotLift: if the graph gives other numbers.
    """

    def __init__(
        self,
        lifted: Lifted,
        loss: DivergenceLoss,
        parameters: Parameters,
        reference: Reference,
        plan: Plan,
        explanation: Explanation,
        warn: Callable[[str], None],
    ) -> None:
        self.lifted = lifted
        self._loss, self._parameters, self._reference = loss, parameters, reference
        self._plan, self._explanation, self._warn = plan, explanation, warn
        self._gradient: GradientStep | None = None
        self._updates: dict[Rule, UpdateStep] = {}
        self._compiling: dict[SplitStep, Future[Program]] = {}
        verify(reference, self._graph_at, same_operations)

    def until_change(self, count: int) -> int:
        """So many steps, or fewer if something else runs them from a certain one on."""
        left = self._plan.since - self._loss.step
        return min(count, left) if left > 0 else count

    def gradient(self) -> GradientStep:
        """The program for loss and gradients at this step."""
        if self._gradient is None:
            with self._explanation.timed("splitting"):
                self._gradient = GradientStep(self.lifted, self._parameters.leaves)
            self._begin(self._gradient.split, self._check_gradient)
        self._upgrade(self._gradient.split, self._check_gradient)
        return self._gradient

    def updates(self, rule: Rule) -> UpdateStep:
        """The program for steps with an optimizer at this step."""
        if rule not in self._updates:
            with self._explanation.timed("splitting"):
                self._updates[rule] = UpdateStep(self.lifted, self._parameters.leaves, rule)
            self._begin(self._updates[rule].split, self._check_updates(rule))
        self._upgrade(self._updates[rule].split, self._check_updates(rule))
        return self._updates[rule]

    def _begin(self, split: SplitStep, check: _Check) -> None:
        """Check what is interpreted, and have it compiled meanwhile."""
        check()
        self._explanation.operations = (self.lifted.operations, split.operations)
        self._explanation.peak_bytes = split.peak_bytes
        if self._plan.tier != "graph" and self._loss.step < self._plan.since:
            executor = ThreadPoolExecutor(1, thread_name_prefix="compiler")
            self._compiling[split] = executor.submit(split.program, self._plan.tier)
            executor.shutdown(wait=False)

    def _upgrade(self, split: SplitStep, check: _Check) -> None:
        """Run what was compiled, from the step on at which that was planned."""
        plan = self._plan
        if split.tier == plan.tier or self._loss.step < plan.since:
            return
        try:
            with self._explanation.timed("compiling"):
                future = self._compiling.pop(split, None)
                program = split.program(plan.tier) if future is None else future.result()
            split.use(program, plan.tier)
            check()
        except KLModesError as error:
            split.use(split.program("graph"), "graph")
            self._plan = plan._replace(tier="graph")
            self._explanation.reason += f" Interpreted, because {error}."
            self._warn(f"{error}, so the graph is interpreted")

    def _graph_at(self, point: Point) -> Gradient:
        with torch.no_grad():
            loss, *found = self.lifted.graph(*point.at, self._settings(point), *self._data)
        return loss, self.lifted.gradients(found)

    def _check_gradient(self) -> None:
        step = self._gradient
        if step is not None:
            verify(
                self._reference,
                lambda point: step(point.at, self._settings(point), self._data),
                reordered,
            )

    def _check_updates(self, rule: Rule) -> _Check:
        """Compare the first moment after one step, which is a share of the gradient."""
        step = self._updates[rule]
        share, moved = 1.0 - rule.betas[0], self.lifted.moved

        def run(point: Point) -> Gradient:
            moving = [p for p, m in zip(point.at, moved, strict=True) if m]
            zeros = [(torch.zeros_like(p), torch.zeros_like(p)) for p in moving]
            settings, factors = self._settings(point)[None], rule.factors(0, 1, 1.0)
            losses, _, pairs = step(point.at, zeros, settings, self._data, factors)
            return losses[0], self.lifted.gradients([first / share for first, _ in pairs])

        return lambda: verify(self._reference.through(rule.seen), run, reordered)

    @property
    def _data(self) -> tuple[Tensor, ...]:
        return self.lifted.arguments.tensors

    def _settings(self, point: Point) -> Tensor:  # (dials,)
        return self.lifted.settings(self._loss, point.step)[0]
