"""The engine of one fit: lifts its steps, checks them, and runs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from pyro_klmodes.engine.backends import Tier, why_no_compiler
from pyro_klmodes.engine.calls import Arguments
from pyro_klmodes.engine.causes import cause_of
from pyro_klmodes.engine.choose import Choice, Plan, make_plan, worth_lifting
from pyro_klmodes.engine.explanation import Explanation
from pyro_klmodes.engine.lift import lift
from pyro_klmodes.engine.moments import Moments
from pyro_klmodes.engine.parameters import Parameters
from pyro_klmodes.engine.programs import Programs
from pyro_klmodes.engine.reference import Reference, runs_change
from pyro_klmodes.engine.watch import Watch, outer_handler
from pyro_klmodes.errors import KLModesError, KLModesWarning
from pyro_klmodes.losses import DivergenceLoss
from pyro_klmodes.tracing.runs import Pair

__all__ = ["Engine"]

_Found = TypeVar("_Found")

#: different shapes of arguments that are compiled; a last short batch is the second
_MOST_KINDS = 4
#: calls between two looks at what model and guide read in Python, where nobody can have changed it
_LOOK_EVERY = 50


class Engine:
    """Runs the steps of a fit from a graph, as long as that is what eager code would do.

    Args:
        choice: what was asked for.
        model: the model.
        guide: the guide.
        loss: what is minimised.
        steps: how many there will be in all, None if nobody knows.
        observed: whether somebody is called between steps, who may change what model and guide
            read.
    """

    def __init__(
        self,
        choice: Choice,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss: Any,
        steps: int | None,
        *,
        observed: bool = False,
    ) -> None:
        self.model, self.guide, self.loss = model, guide, loss
        self._look_every = 1 if observed else _LOOK_EVERY
        self._calls = 0
        self.explanation = Explanation(choice)
        self._choice: Choice = choice
        self._steps = steps
        self._kinds: dict[Hashable, Programs] = {}
        self._watch = Watch(model, guide, loss)
        self._parameters: Parameters | None = None
        self._shapes: Hashable = None  # of parameters, and which of them are learned
        self._failed_at: int | None = None
        self._off = self._why_off()

    def _why_off(self) -> bool:
        if self._choice == "eager":
            self.explanation.reason = "Every step runs model and guide."
            return True
        if not isinstance(self.loss, DivergenceLoss):
            return self._give_up(f"{type(self.loss).__name__} is not one of this package's losses")
        reason = self.loss.why_not_static()
        if reason is not None:
            return self._give_up(f"{type(self.loss).__name__}: {reason}")
        if self._choice == "auto" and not worth_lifting(self._steps):
            many = "Nobody knows how many steps there are, which may be"
            if self._steps is not None:
                many = f"{self._steps} steps are"
            self.explanation.reason = f"{many} too few to pay for a compilation."
            return True
        outer = outer_handler()
        if outer is not None:
            return self._give_up(f"the fit runs inside of a handler of Pyro, {outer}")
        return False

    @property
    def off(self) -> bool:
        """Whether all further steps are eager."""
        return self._off

    def begin(self, leaves: Mapping[str, Tensor], modules: Sequence[Module]) -> bool:
        """Take over, after eager steps have made all parameters; False to wait for one more."""
        changed = None if self._off else self._watch.changed_by_eager()
        if changed is not None and self._watch.waits:
            return False
        if changed is not None:
            return self._give_up(runs_change(changed), warn=True)
        if not self._off:
            self._parameters = Parameters(leaves, modules)
        return True

    def resume(self, cause: str | None) -> None:
        """Go on as an earlier part of the fit did, which had to give up for a cause, or not."""
        if cause is not None and not self._off:
            self._give_up(cause, warn=True)

    def gradient(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float | None:
        """Set the gradients of all parameters; the loss, or None where eager code has to do it."""
        if self._parameters is None and not self._off:
            self._watch.before_eager(args, kwargs)
        arguments = Arguments.of(args, kwargs)
        kind = self._kind(arguments)
        if kind is None or self._parameters is None:
            return None
        before = torch.get_rng_state()
        step = self._made(kind.gradient)
        if step is None:
            return None
        leaves = self._parameters.leaves
        settings = kind.lifted.settings(self.loss, self.loss.step)[0]
        found = self._tried(lambda: step(leaves, settings, arguments.tensors))
        if found is None or not _finite([found[0], *(g for g in found[1] if g is not None)]):
            torch.set_rng_state(before)  # eager code says what is wrong, and where
            return None
        loss, gradients = found
        for p, g in zip(self._parameters.leaves, gradients, strict=True):
            p.grad = g
        self._took(step.split.tier, 1)
        return float(loss)

    def updates(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        moments: Callable[[Sequence[Tensor]], Moments | None],
        count: int,
    ) -> list[float] | None:
        """Take several steps; their losses, or None, and nothing has changed, if it cannot.

        Args:
            args: of model and guide.
            kwargs: likewise.
            moments: the state of the optimizer for some parameters, if its rule is known.
            count: how many steps at most.
        """
        arguments = Arguments.of(args, kwargs)
        kind = self._kind(arguments)
        if kind is None or self._parameters is None:
            return None
        moving = [p for p, m in zip(self._parameters.leaves, kind.lifted.moved, strict=True) if m]
        state = moments(moving)
        if state is None:
            return None
        rule = state.rule
        step = self._made(lambda: kind.updates(rule))
        if step is None:
            return None
        count = kind.until_change(count)
        before = torch.get_rng_state()
        leaves = self._parameters.leaves
        settings = kind.lifted.settings(self.loss, self.loss.step, count)
        factors = rule.factors(state.done, count, state.rate)
        found = self._tried(lambda: step(leaves, state.pairs, settings, arguments.tensors, factors))
        if found is None or not _finite([found[0], *found[1]]):
            torch.set_rng_state(before)
            return None
        losses, values, pairs = found
        state.write(values, pairs, count)
        self._took(step.split.tier, count)
        return list(losses.tolist())

    def _made(self, make: Callable[[], _Found]) -> _Found | None:
        """What is needed for compiled steps, or None after an error: steps go on without."""
        try:
            return make()
        except Exception as error:
            self._give_up(_why(error), warn=True)
            return None

    def _tried(self, run: Callable[[], _Found]) -> _Found | None:
        """The result, or None after an error, which eager code is to raise in the user's terms."""
        try:
            return run()
        except Exception as error:  # whatever an operation complains of
            if self._failed_at not in (None, self.loss.step):  # eager code went on there
                self._give_up(f"the compiled step has failed: {cause_of(error)}", warn=True)
            self._failed_at = self.loss.step
            return None

    def _took(self, tier: Tier, count: int) -> None:
        self.loss.step += count
        self.explanation.count(tier, count)

    def _kind(self, arguments: Arguments) -> Programs | None:
        """The compiled step for arguments like these, or None."""
        if self._off or self._parameters is None:
            return None
        cause = self._parameters.changed()
        if self._shapes != self._parameters.kind:  # some were frozen, or set free
            self._shapes = self._parameters.kind
            self._kinds.clear()
        key = arguments.kind
        if key in self._kinds:
            cause = cause or self._kinds[key].lifted.why_stale(arguments.tensors)
            changed = None
            if self._calls % self._look_every == 0:
                changed = self._watch.changed(key)
            if changed is not None:
                cause = f"{changed} has changed since the step was lifted"
        self._calls += 1
        if cause is not None:
            self._give_up(cause, warn=True)
            return None
        if key not in self._kinds:
            if len(self._kinds) == _MOST_KINDS:
                self._give_up(
                    "the arguments of model and guide change their shapes, or what is no tensor "
                    "among them, from step to step",
                    warn=True,
                )
                return None
            args, kwargs = arguments.call_with(arguments.tensors)
            made = self._made(lambda: self._prepared(Pair(self.model, self.guide, args, kwargs)))
            if made is None:
                return None
            self._kinds[key] = made
        return self._kinds[key]

    def _prepared(self, pair: Pair) -> Programs:
        assert self._parameters is not None
        with self.explanation.timed("comparison with eager code"):
            reference = Reference.of(pair, self.loss, self._parameters)
        with self.explanation.timed("tracing"):
            lifted = lift(pair, self.loss, self._parameters)
        plan = self._plan(lifted.operations)
        self.explanation.reason = self.explanation.reason or plan.reason
        programs = Programs(
            lifted, self.loss, self._parameters, reference, plan, self.explanation, self._warn
        )
        arguments = lifted.arguments
        self._watch.begin(arguments.kind, arguments, self._parameters.modules)
        return programs

    def _plan(self, operations: int) -> Plan:
        missing = why_no_compiler()
        if self._choice == "auto" or self._choice == "eager":
            return make_plan(self._steps or 0, operations, compiler=missing is None)
        if self._choice != "graph" and missing is not None:
            self._warn(f"{missing}, so the graph is interpreted instead")
            return Plan("graph", 0, f"engine='{self._choice}' was asked for, but {missing}.")
        return Plan(self._choice, 0, f"engine='{self._choice}' was asked for.")

    def _give_up(self, cause: str, *, warn: bool = False) -> bool:
        """All further steps are eager."""
        self._off = True
        self.explanation.cause = cause
        if warn or self._choice != "auto":
            self._warn(f"{cause}. Steps are run by Pyro, which is always right and slower")
        return True

    def _warn(self, text: str) -> None:
        warnings.warn(f"engine='{self._choice}': {text}.", KLModesWarning, stacklevel=2)


def _why(error: Exception) -> str:
    """The cause, in this package's words if it has any."""
    return str(error) if isinstance(error, KLModesError) else f"compiling failed, {cause_of(error)}"


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors)
